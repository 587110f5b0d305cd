"""Script run by alembic, on the connection given to `alembic_config`."""

from alembic import context

from clm_core.ledger.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
