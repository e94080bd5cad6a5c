"""Measures what the service can take, as ratios of a ceiling measured in the same run; never part of the image."""
