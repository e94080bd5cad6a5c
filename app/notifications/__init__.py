"""Signed webhooks of ours: to the endpoints of programs, and callbacks of one job."""
