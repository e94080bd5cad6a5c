"""Asks Rivya for the outcome of generations whose callback is overdue, within one budget for all replicas."""
