"""The HTTP API for other services: read, wait for and track generations; usage, health and metrics."""
