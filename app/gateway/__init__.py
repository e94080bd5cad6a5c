"""Relays the rest of Rivya's API: models, credits, files, chat and its stream."""
