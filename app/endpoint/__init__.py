"""The webhook endpoint that we register with Rivya, its signing secrets, and the verification of deliveries."""
