"""Alembic's environment: database.upgrade() brings the connection along."""

from alembic import context
from sqlmodel import SQLModel

import billing_core.models  # noqa: F401  (fills the metadata)

context.configure(connection=context.config.attributes["connection"], target_metadata=SQLModel.metadata)
context.run_migrations()
