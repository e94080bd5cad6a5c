"""The steps, in order: keys, known events, first bounds, months."""
