"""Our registration with Rivya: register, adopt, and keep the one-time secret that intake verifies with."""
