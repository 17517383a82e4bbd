"""What alembic runs: the migrations, on the connection that `open_database` gives."""

from alembic import context

from service.store.database import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
