"""The rate limit of background requests to Rivya, shared by all replicas."""
