"""Alembic's entry: runs the migrations on the connection that `schema.upgrade` opened."""

from alembic import context

from dicomnode.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
