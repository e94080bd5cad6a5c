"""What an operator is told and can do: silence is noticed, deliveries are replayed, what is old is pruned."""
