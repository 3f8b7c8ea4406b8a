"""One question that is asked for every instance, over a connection that is kept for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ClauseElement, Connection
from sqlalchemy.exc import SQLAlchemyError

from dicomnode.errors import LedgerError
from dicomnode.ledger.core import ONLY_READS, Ledger


class Question:
    """Asks whether a statement finds a row for a UID, without what SQLAlchemy does beside.

    It sees what is committed when it is asked, and waits for nobody's transaction. For one thread.

    Args:
        ledger: is asked.
        statement: has one parameter, in as many places as it likes.
    """

    def __init__(self, ledger: Ledger, statement: ClauseElement) -> None:
        self._ledger = ledger
        compiled = statement.compile(ledger.engine)
        self._text = str(compiled)
        self._places = compiled.positiontup  # type: ignore[attr-defined]
        self._names = list(compiled.params)
        self._connection: Connection | None = None

    def ask(self, uid: str) -> bool:
        """Ask.

        Raises:
            LedgerError: the database cannot be used; the next question tries again.
        """
        named = dict.fromkeys(self._names, uid)
        parameters: Any = named if self._places is None else (uid,) * len(self._places)
        try:
            if self._connection is None:
                self._connection = self._ledger.engine.connect().execution_options(
                    isolation_level="AUTOCOMMIT", **{ONLY_READS: True}
                )
            found = self._connection.exec_driver_sql(self._text, parameters)
            return found.first() is not None
        except SQLAlchemyError as error:
            self.close()
            raise LedgerError(f"ledger: {type(error).__name__}") from error

    def close(self) -> None:
        """Give the connection up; the next question opens one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
