"""A faster way through the server for requests that are whole and ordinary; the plain way answers the same."""
