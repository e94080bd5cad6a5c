"""Polls Rivya for generations whose callback is overdue, within one request budget for all replicas."""
