"""The words of the command that call a running receiver as any program would: over HTTP, with a token of its own."""
