"""Rivya's wire format: how a delivery is signed, what the bodies mean, how to call the API and how calls fail."""
