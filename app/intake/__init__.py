"""POST /rivya/webhook…: bytes, verified, turned into a report, durable, answered."""
