"""Infrastructure, independent of Rivya's API: settings, database, clock, ids, logs, metrics, background loops."""
