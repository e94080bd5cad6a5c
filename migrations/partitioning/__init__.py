"""Partitions `deliveries` and `transitions` by month on PostgreSQL, when an operator wants it; nothing else runs this.

Steps that can be resumed, each a transaction of its own, while the service goes on: see docs/scaling.md.
"""
