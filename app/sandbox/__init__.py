"""A Rivya that runs on this machine, for the demo, tests and fault injection; it shares no code with the service."""
