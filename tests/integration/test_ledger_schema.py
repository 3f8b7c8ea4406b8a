"""The schema: the migrations make the tables that the code means, once, whoever comes first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from ledger_kit import rows
from peers import Postgres
from sqlalchemy import inspect, text

from dicomnode.errors import ConflictError, LedgerError
from dicomnode.ledger import Ledger, associations, nodes, tables
from dicomnode.ledger.schema import upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bare.sqlite'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.fresh_database()


def test_the_migrations_make_exactly_the_tables_of_the_code(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, tables.metadata) == []


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(ledger: Ledger) -> None:
    before = inspect(ledger.engine).get_table_names()
    upgrade(ledger)
    assert inspect(ledger.engine).get_table_names() == before
    assert [row.id for row in rows(ledger, tables.node)] == ["node-1"]


def test_roles_that_start_at_the_same_moment_upgrade_once(bare_url: str) -> None:
    together = threading.Barrier(4)

    def start(number: int) -> None:
        ledger = Ledger(bare_url, f"node-{number}")
        together.wait()
        upgrade(ledger)
        with ledger.transaction() as tx:
            nodes.register_node(tx, "DICOMNODE", "key")
        ledger.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(4)))
    ledger = Ledger(bare_url, "looker-on")
    assert len(rows(ledger, tables.node)) == 4
    ledger.close()


def test_a_ledger_of_a_newer_version_is_left_alone(bare_url: str) -> None:
    ledger = Ledger(bare_url, "node-1")
    upgrade(ledger)
    with ledger.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"newer version \(schema 9999\)"):
        upgrade(ledger)
    ledger.close()


def test_a_time_comes_back_in_utc_whatever_its_zone_was(ledger: Ledger, clock: Any) -> None:
    clock.now = datetime(2026, 3, 1, 1, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with ledger.transaction() as tx:
        associations.open_association(tx, calling_ae="A", called_ae="B", address="127.0.0.1")
    (row,) = rows(ledger, tables.association)
    assert row.opened_at == datetime(2026, 2, 28, 23, 30, 0, 123456, tzinfo=UTC)
    assert row.opened_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(ledger: Ledger, clock: Any) -> None:
    clock.now = datetime(2026, 3, 1)  # noqa: DTZ001 - it is what the test is about
    with pytest.raises(LedgerError, match="time zone"), ledger.transaction() as tx:
        associations.open_association(tx, calling_ae="A", called_ae="B", address="127.0.0.1")


def test_the_clock_of_a_ledger_is_near_this_machines(ledger_url: str) -> None:
    ledger = Ledger(ledger_url, "node-1")
    with ledger.transaction() as tx:
        first = tx.now
    with ledger.transaction() as tx:
        second = tx.now
    ledger.close()
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
    assert first.utcoffset() == timedelta(0)
    assert first <= second


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "nonsense://x",
        "postgresql+nodriver://user:secret@host/db",
        "sqlite:////proc/none/ledger.sqlite",
    ],
)
def test_a_ledger_that_cannot_be_is_told_without_its_password(url: str) -> None:
    with pytest.raises(LedgerError, match=r"storage\.ledger") as error:
        Ledger(url, "node-1")
    assert "secret" not in str(error.value)


def test_a_database_that_is_away_is_told_without_its_password(free_port: Any) -> None:
    url = f"postgresql+psycopg://user:secret@127.0.0.1:{free_port()}/db"
    ledger = Ledger(url, "node-1")
    with pytest.raises(LedgerError) as error:
        upgrade(ledger)
    assert "secret" not in str(error.value)
    with pytest.raises(LedgerError), ledger.transaction():
        pass


def test_a_unique_index_speaks_as_a_conflict_and_shows_no_values(ledger: Ledger) -> None:
    values = {"ae_title": "PRIVATE", "patient_key_id": "key", "started_at": datetime.now(UTC)}
    with pytest.raises(ConflictError) as error, ledger.transaction() as tx:
        tx.connection.execute(tables.node.insert().values(id="node-1", **values))
    assert "PRIVATE" not in str(error.value) + str(error.value.__cause__)
