"""Static files of the console, and the page at /docs."""
