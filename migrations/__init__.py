"""The database schema, step by step, up and down, on PostgreSQL and SQLite."""
