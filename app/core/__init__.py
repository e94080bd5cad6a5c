"""What every service needs and no part of Rivya: settings, database, clock, ids, logs, metrics, supervised loops."""
