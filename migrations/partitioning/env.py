"""Runs the steps of partitioning, each in a transaction of its own, within a connection that is handed over."""

from alembic import context

VERSIONS = "alembic_version_partitioning"

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSIONS,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
