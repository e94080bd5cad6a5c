"""Everything else of Rivya, relayed: models, credits, files, chat and its stream."""
