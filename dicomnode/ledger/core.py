"""The ledger's connection, its clock, its transactions and the one way a state changes."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, select, text
from sqlalchemy import func as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from dicomnode.domain.lifecycle import LIVES
from dicomnode.errors import ConflictError, LedgerError
from dicomnode.ledger import outbox, tables

log = logging.getLogger(__name__)

LOCK_SECONDS = 30.0
"""How long a connection waits for SQLite's lock."""

ONLY_READS = "dicomnode_only_reads"

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return this machine's time in UTC: the clock of an SQLite ledger."""
    return datetime.now(UTC)


class Transaction:
    """One transaction: a connection, the time it began, and the events that go with its changes."""

    def __init__(
        self, connection: Connection, now: datetime, node_id: str, audit_room: int = 0
    ) -> None:
        self.connection = connection
        self.now = now
        self.node_id = node_id
        self.audit_room = audit_room
        self.noted, self.noted_before = outbox.Noted(), outbox.Noted()
        self._logged: list[tuple[int, str, dict[str, Any]]] = []

    def event(
        self,
        code: str,
        *,
        level: str = "info",
        detail: str = "",
        study: int | None = None,
        series: int | None = None,
        job: int | None = None,
        delivery: int | None = None,
        association: int | None = None,
        by: str = "",
    ) -> None:
        """Record an event in this transaction; it is logged when the transaction has committed.

        Where it belongs in the audit trail, a record for that goes with it.

        Args:
            code: what happened, UPPER_SNAKE.
            level: info, warning, or attention: a person has to look.
            detail: one sentence, without patient data.
            study: its id, if the event is about one; likewise the others.
            by: the person who did it, for the audit trail.
        """
        subjects = {
            "study": study,
            "series": series,
            "job": job,
            "delivery": delivery,
            "association": association,
        }
        row = {f"{name}_id": value for name, value in subjects.items()}
        self.connection.execute(
            tables.event.insert().values(
                at=self.now, node_id=self.node_id, level=level, code=code, detail=detail, **row
            )
        )
        about = {"study_id": study, "job_id": job, "delivery_id": delivery}
        outbox.record(self, code, by=by, detail=detail, **about)
        severity = logging.INFO if level == "info" else logging.WARNING
        self._logged.append((severity, code, {"detail": detail, **subjects}))

    def event_again(self, code: str, *, level: str, detail: str) -> None:
        """Record an event that may repeat without end: the same one counts up instead."""
        table = tables.event
        counted = self.connection.execute(
            table.update()
            .where(
                table.c.node_id == self.node_id,
                table.c.code == code,
                table.c.detail == detail,
                table.c.resolved_at.is_(None),
            )
            .values(count=table.c.count + 1, at=self.now)
        )
        if counted.rowcount == 0:
            self.event(code, level=level, detail=detail)

    def insert(self, table: Table, **values: Any) -> int:
        """Insert a row and return its id."""
        inserted = self.connection.execute(table.insert().values(**values)).inserted_primary_key
        if inserted is None:
            raise LedgerError(f"ledger: no id for a new row of {table.name}")
        return int(inserted[0])

    def insert_once(self, table: Table, **values: Any) -> bool:
        """Insert a row unless a unique index says it is there; return whether it was inserted."""
        dialect = sqlite if self.connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
        # Of an INSERT, PostgreSQL's row count is thrown away unless it is asked for.
        kept = {"preserve_rowcount": True}
        return self.connection.execute(statement, execution_options=kept).rowcount == 1

    def move(
        self,
        table: Table,
        row_id: int,
        step_name: str,
        *fence: ColumnElement[bool],
        **values: Any,
    ) -> bool:
        """Take one step of a life (`domain.lifecycle`), if the row still stands where it may start.

        Returns:
            Whether the row moved; if not, somebody else moved it first and nothing has changed.
        """
        step = LIVES[table.name][step_name]
        changed = self.connection.execute(
            table.update()
            .where(table.c.id == row_id, table.c.state.in_(sorted(step.sources)), *fence)
            .values(state=step.target, **values)
        )
        return changed.rowcount == 1

    def committed(self) -> None:
        """Log what this transaction recorded."""
        for severity, code, fields in self._logged:
            log.log(severity, code, extra={"fields": {k: v for k, v in fields.items() if v}})


class Ledger:
    """Opens transactions on the ledger's database.

    Args:
        url: of SQLAlchemy, `sqlite:////path` or `postgresql+psycopg://...`.
        node_id: whose events and claims the transactions make.
        clock: replaces the database's clock in tests.
        audit_room: how many records may wait for the audit trail; 0: none is made.

    Raises:
        LedgerError: the URL is none, or its driver is not installed.
    """

    def __init__(
        self, url: str, node_id: str, clock: Clock | None = None, audit_room: int = 0
    ) -> None:
        self.node_id = node_id
        self.audit_room = audit_room
        self._noted = outbox.Noted()
        self._clock = clock
        try:
            self.url = make_url(url)
            self.engine = _engine(self.url)
        except (SQLAlchemyError, ImportError, OSError) as error:
            # Never the URL itself: there may be a password in it.
            raise LedgerError(f"storage.ledger cannot be used: {_first_line(error)}") from error

    @property
    def is_sqlite(self) -> bool:
        """Whether the ledger is embedded: one file, one machine."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Open a transaction that writes; it commits at the end of the block.

        Raises:
            ConflictError: a unique index refused a row; nothing has changed.
            LedgerError: the database cannot be used; nothing has changed.
        """
        try:
            with self.engine.begin() as connection:
                now = self._now(connection)
                tx = Transaction(connection, now, self.node_id, self.audit_room)
                tx.noted_before = self._noted
                yield tx
        except IntegrityError as error:
            raise ConflictError(f"ledger: {_first_line(error)}") from error
        except SQLAlchemyError as error:
            raise LedgerError(f"ledger: {type(error).__name__}: {_first_line(error)}") from error
        outbox.remember(self._noted, tx.noted)
        tx.committed()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection for one statement that only reads; it waits for nobody's transaction.

        Raises:
            LedgerError: the database cannot be used.
        """
        try:
            with self.engine.connect().execution_options(**{ONLY_READS: True}) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(f"ledger: {type(error).__name__}: {_first_line(error)}") from error

    @contextmanager
    def looking(self) -> Iterator[Transaction]:
        """Open a transaction that only reads: one moment's facts, without waiting for who writes.

        Raises:
            LedgerError: the database cannot be used.
        """
        try:
            reader = self.engine.connect().execution_options(**{ONLY_READS: True})
            with reader as connection, connection.begin(), self._only_reading(connection):
                yield Transaction(connection, self._now(connection), self.node_id)
        except SQLAlchemyError as error:
            raise LedgerError(f"ledger: {type(error).__name__}: {_first_line(error)}") from error

    @contextmanager
    def _only_reading(self, connection: Connection) -> Iterator[None]:
        if not self.is_sqlite:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            yield
            return
        connection.execute(text("PRAGMA query_only=ON"))
        connection.execute(text("BEGIN DEFERRED"))
        try:
            yield
        finally:
            connection.execute(text("PRAGMA query_only=OFF"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if self.is_sqlite:
            return utc_now()
        now: datetime = connection.execute(select(sql.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else ""


def _engine(url: URL) -> Engine:
    # Parameters stay out of error texts and so out of logs: they hold descriptions of series.
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)

        @event.listens_for(engine, "connect")
        def _durable(connection: Any, _record: Any) -> None:
            # Whatever the server's default is: a commit that has returned survives a crash.
            connection.execute("SET synchronous_commit TO on")
            connection.commit()

        return engine
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(
        url,
        connect_args={"timeout": LOCK_SECONDS, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous=FULL")  # a commit survives a power loss
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get(ONLY_READS):
            return
        # A deferred transaction that reads first and writes later can fail for good with
        # SQLITE_BUSY; one that takes the write lock at once waits its turn.
        connection.execute(text("BEGIN IMMEDIATE"))

    return engine


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Have SQLite write ahead; for this one lock it does not wait by itself."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
