"""POST /rivya/webhook: verify a delivery, parse it, record it, answer."""
