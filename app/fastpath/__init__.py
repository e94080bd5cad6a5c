"""A faster path through the server for complete, plain requests; the plain path gives the same responses."""
