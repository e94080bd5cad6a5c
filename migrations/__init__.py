"""The migrations of the database."""

FIRST_TABLES = frozenset(
    {
        *("activity_minutes", "deliveries", "endpoint_history", "endpoint_secrets", "endpoints", "generations"),
        *("leases", "poll_budget", "polls", "rejections", "replicas", "submissions", "transitions"),
        *("usage_changes", "usage_hours"),
    }
)
"""The tables that the first migration makes: a database that has one of them before is not ours."""
