"""Know the outcome of every Rivya generation: pushed when Rivya calls back, pulled when it does not."""
