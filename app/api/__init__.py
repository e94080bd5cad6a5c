"""What other services call: the record read, waited for and added to; health and metrics beside it."""
