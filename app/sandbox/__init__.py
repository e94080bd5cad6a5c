"""A stand-in for Rivya on this machine, for the demonstration and for tests; it shares no code with the service."""
