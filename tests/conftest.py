"""Fixtures: real peers, the node, ledgers on both databases, and the test data.

A peer that this machine lacks skips the test by name; under CI=true that is a failure, because
there `.ci/run` has installed them all.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import peers
import pytest
from nodes import Node
from peers import Dcmqrscp, Dcmtk, Orthanc, Postgres
from repositories import Rsyslog
from sqlalchemy import text

from dicomnode.ledger import Ledger, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import metadata

REPOSITORY = Path(__file__).resolve().parent.parent
FORWARD = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  if WHERE then SendToModality(instanceId, 'NODE') end
end
"""
IN_CI = os.environ.get("CI") == "true"


def _lacking(what: str) -> None:
    """Skip a test that this machine cannot run; fail it in CI."""
    if IN_CI:
        pytest.fail(f"{what}, and CI=true", pytrace=False)
    pytest.skip(what)


def _require(*names: str) -> None:
    missing = peers.missing_peers(names)
    if missing:
        _lacking(f"missing: {', '.join(missing)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for the programs that `@pytest.mark.peer("orthanc", ...)` names."""
    for marker in item.iter_markers("peer"):
        _require(*marker.args)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real CT data: DICOMNODE_TEST_DATA, else ../shared/data beside the checkout."""
    given = os.environ.get("DICOMNODE_TEST_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        _lacking(f"missing: test data ({folder}; set DICOMNODE_TEST_DATA)")
    return folder.resolve()


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that returns another free loopback port with every call."""
    return peers.free_port


@pytest.fixture
def dcmtk() -> Dcmtk:
    """DCMTK's tools, calling as MODALITY."""
    _require("dcmtk")
    return Dcmtk()


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Start Orthancs; arguments as of `peers.Orthanc`, without the folder."""
    _require("orthanc")
    started: list[Orthanc] = []

    def start(**keywords: Any) -> Orthanc:
        orthanc = Orthanc(tmp_path / f"orthanc-{len(started) + 1}", **keywords)
        started.append(orthanc)
        orthanc.start()
        return orthanc

    yield start
    for orthanc in started:
        orthanc.kill()  # in good order it takes seconds, and nothing of it is kept


@pytest.fixture
def orthanc(start_orthanc: Callable[..., Orthanc]) -> Orthanc:
    """An Orthanc with the AE title ARCHIVE that runs."""
    return start_orthanc()


@pytest.fixture
def forwarding_orthanc(
    start_orthanc: Callable[..., Orthanc], tmp_path: Path
) -> Callable[..., Orthanc]:
    """Start an Orthanc that sends what it stores to a node; `where`: a condition of Lua."""

    def start(port: int, where: str = "true") -> Orthanc:
        script = tmp_path / "forward.lua"
        script.write_text(FORWARD.replace("WHERE", where))
        modalities = {"NODE": ("DICOMNODE", port)}
        return start_orthanc(modalities=modalities, options={"LuaScripts": [str(script)]})

    return start


@pytest.fixture
def start_dcmqrscp(tmp_path: Path) -> Iterator[Callable[..., Dcmqrscp]]:
    """Start dcmqrscps; arguments as of `peers.Dcmqrscp`, without the folder."""
    _require("dcmtk")
    started: list[Dcmqrscp] = []

    def start(**keywords: Any) -> Dcmqrscp:
        archive = Dcmqrscp(tmp_path / f"dcmqrscp-{len(started) + 1}", **keywords)
        started.append(archive)
        archive.start()
        return archive

    yield start
    for archive in started:
        archive.kill()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Rsyslog]:
    """An audit record repository that runs: rsyslog."""
    _require("rsyslog")
    made = Rsyslog(tmp_path / "repository")
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Make nodes and start them.

    `node("run", archive=orthanc)` or `node("receive", "tick", quiet_seconds=0.5)`; keywords as of
    `nodes.Node`; no command makes a node that does not run yet (`.start(...)`). At the end of the
    test every node is stopped, and must end with exit code 0 on SIGTERM.
    """
    made: list[Node] = []

    def make(*commands: str, **keywords: Any) -> Node:
        number = "" if not made else f"-{len(made) + 1}"
        new = Node(tmp_path / f"node{number}", **keywords)
        made.append(new)
        return new.start(*commands) if commands else new

    yield make
    try:
        for one in made:
            sys.stderr.write(f"{one.log}:\n{peers.tail(one.log, 60)}\n")
            one.stop()
    finally:
        for one in made:
            one.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the session; `fresh_database()` for every use."""
    _require("postgres")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """The clock of `ledger`."""
    return Clock()


@pytest.fixture(scope="session")
def _empty_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "empty.sqlite"
    ledger = Ledger(f"sqlite:///{path}", "template")
    upgrade(ledger)
    ledger.close()
    return path


@pytest.fixture(scope="session")
def _postgres_ledger(postgres: Postgres) -> Iterator[Ledger]:
    ledger = Ledger(postgres.fresh_database(), "template")
    upgrade(ledger)
    yield ledger
    ledger.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a ledger with all its tables and no row, on either database."""
    if request.param == "sqlite":
        path = tmp_path / "ledger.sqlite"
        shutil.copy(request.getfixturevalue("_empty_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    # Emptied, not made anew: a database costs half a second.
    shared: Ledger = request.getfixturevalue("_postgres_ledger")
    names = ", ".join(table.name for table in metadata.sorted_tables)
    with shared.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
    yield shared.url.render_as_string(hide_password=False)


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """A ledger of node-1, which is registered, on either database, with a clock that stands."""
    opened = Ledger(ledger_url, "node-1", clock)
    with opened.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
    yield opened
    opened.close()
