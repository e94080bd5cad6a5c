"""The budget of requests to Rivya that all replicas share."""
