"""Managed tokens: made, listed, rotated and revoked while the service runs, and what each may spend."""
