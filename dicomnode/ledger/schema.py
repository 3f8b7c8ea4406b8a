"""Bring a ledger's schema up to date, under a lock, so that roles may start at the same moment."""

from __future__ import annotations

from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.errors import LedgerError
from dicomnode.ledger.core import Ledger

_LOCK = 0x6469636F6D  # of PostgreSQL's advisory locks


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(resources.files("dicomnode.ledger").joinpath("migrations"))
    )
    config.set_main_option("path_separator", "os")
    return config


def upgrade(ledger: Ledger) -> None:
    """Apply the migrations that the ledger lacks.

    Raises:
        LedgerError: it cannot be reached, or a newer version of the software has made it.
    """
    config = _config()
    try:
        with ledger.engine.begin() as connection:
            if not ledger.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            found = MigrationContext.configure(connection).get_current_revision()
            known = {
                script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
            }
            if found is not None and found not in known:
                raise LedgerError(f"ledger: made by a newer version (schema {found})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        raise LedgerError(f"ledger {ledger.url.render_as_string()}: {error}") from error
