"""A node's spool and ledger as a version of this software left them, frozen for its successors.

`python tests/upgrade_kit.py` (`make freeze-fixture`) makes the fixture of the newest schema: a node
works with a real archive, is stopped in the midst of what it had to do, and what lies in its folder
is packed. Patients are invented.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kills import series_of, study_uid
from nodes import Node, Status, are_delivered
from peers import Orthanc
from processes import analyses, hurry
from scu import Wire, store
from sqlalchemy import Engine, inspect, select

from dicomnode import __version__
from dicomnode.ledger import jobs
from dicomnode.ledger.tables import study

FIXTURES = Path(__file__).parent / "fixtures" / "upgrade"
STUDIES = ("delivered", "waiting", "queued", "leased", "held", "open")
"""What had become of each; the number of its place is its series' seed."""
OVERRIDES: dict[str, Any] = {
    "destinations": {"archive": {"objects": ["seg", "sr"]}},  # a preview would not be small
    "rules": [
        {
            "name": "CT",
            "when": {"modality": ["CT"], "min_instances": 2},
            "model": "demo",
            "options": {"mode": "exact"},
            "destinations": ["archive"],
        }
    ],
}
MAX_BYTES = 300_000


def wires_of(name: str) -> list[Wire]:
    """Return the series of a study."""
    return series_of(100 + STUDIES.index(name))


def uid_of(name: str) -> str:
    """Return the Study Instance UID of a study."""
    return study_uid(wires_of(name))


def schema_lines(engine: Engine) -> Iterator[str]:
    """Yield a line for each column, key and index of a database, in a fixed order."""
    found = inspect(engine)
    for table in sorted(found.get_table_names()):
        for column in found.get_columns(table):
            null = "" if column["nullable"] else " not null"
            default = f" default {column['default']}" if column["default"] is not None else ""
            yield f"{table}.{column['name']}: {column['type']}{null}{default}"
        key = found.get_pk_constraint(table)["constrained_columns"]
        yield f"{table} primary key: {', '.join(key)}"
        lines = [
            f"{table} {', '.join(key['constrained_columns'])} -> {key['referred_table']}"
            for key in found.get_foreign_keys(table)
        ]
        lines += [
            f"{table} unique: {', '.join(map(str, key['column_names']))}"
            for key in found.get_unique_constraints(table)
        ]
        for index in found.get_indexes(table):
            kind = "unique index" if index["unique"] else "index"
            lines.append(f"{table} {kind}: {', '.join(map(str, index['column_names']))}")
        yield from sorted(lines)


def freeze(to: Path) -> None:
    """Have a node leave studies in every state behind, and pack its folder.

    Args:
        to: the folder of all fixtures; that of the newest schema is made anew in it.
    """
    with tempfile.TemporaryDirectory(prefix="freeze") as name:
        folder = Path(name)
        orthanc = Orthanc(folder / "orthanc")
        orthanc.start()
        node = Node(folder / "node", archive=orthanc, overrides=OVERRIDES)
        try:
            _leave(node, orthanc)
            engine = node.ledger.engine
            lines = list(schema_lines(engine))
        finally:
            node.close()
            orthanc.kill()
        with closing(sqlite3.connect(node.state / "ledger.sqlite")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("VACUUM")
            (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        target = to / revision
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        _pack(node, target / "state.tar.xz")
        (target / "schema.txt").write_text("\n".join(lines) + "\n")
        manifest = {"frozen_at": datetime.now(UTC).isoformat(), "version": __version__}
        (target / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        size = (target / "state.tar.xz").stat().st_size
        assert size <= MAX_BYTES, f"{size} bytes are no small fixture"
        sys.stdout.write(f"{target}: {size} bytes\n")


def _leave(node: Node, orthanc: Orthanc) -> None:
    """Leave a study of each kind behind, and no process."""
    node.start("receive", "tick", "work", "send")
    _send(node, "delivered")
    node.wait_for(hurried(node, are_delivered(2)), timeout=120)
    orthanc.kill()
    _send(node, "waiting")
    done = hurried(node, lambda status: status["counts"]["jobs"] == {"DONE": 2})
    node.wait_for(done, timeout=120)
    node.kill("work")
    node.kill("send")
    for name in ("queued", "leased", "held"):
        _send(node, name)
    _send(node, "held", other_patient(wires_of("held")[0]))
    node.wait_for(
        lambda status: (
            status["counts"]["jobs"] == {"DONE": 2, "QUEUED": 2}
            and status["counts"]["studies"].get("HELD") == 1
        ),
        timeout=60,
    )
    node.kill("tick")
    with node.ledger.transaction() as tx:
        for _ in range(2):
            claimed = jobs.claim(tx, "node-1:work:gone", timedelta(seconds=1))
            assert claimed is not None
            if claimed.study_uid == uid_of("leased"):
                continue
            stopped = jobs.Retry("STOPPED", "the worker was told to stop")
            jobs.fail(tx, claimed, stopped, max_failures=3, wait=timedelta(0), counts=False)
    _send(node, "open")
    node.stop()


def hurried(node: Node, predicate: Callable[[Status], bool]) -> Callable[[Status], bool]:
    """Return the predicate; whenever it is asked, analyses do not give way to others."""

    def asked(status: Status) -> bool:
        hurry(analyses(node.pid("work")))
        return predicate(status)

    return asked


def _send(node: Node, name: str, *wires: Wire) -> None:
    assert set(store(node.port, *(wires or wires_of(name)))) == {0x0000}


def other_patient(wire: Wire) -> Wire:
    """Return an instance of the same study that is another patient's."""
    uid = f"{wire.sop_instance_uid[:-4]}.9"
    data = wire.data.replace(b"DICOMNODE-PHANTOM ", b"DICOMNODE-ANOTHER ")
    assert data != wire.data
    was = wire.sop_instance_uid.encode()
    return Wire(
        wire.sop_class_uid,
        uid,
        wire.transfer_syntax_uid,
        data.replace(was, uid.encode().ljust(len(was), b"\0")),
    )


def _pack(node: Node, to: Path) -> None:
    left_out = {"tmp", "arriving", "users.json"}

    def kept(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(item.name).parts
        if left_out & set(parts) or item.name.endswith((".lock", "-wal", "-shm")):
            return None
        item.uid = item.gid = 0
        item.uname = item.gname = ""
        return item

    with tarfile.open(to, "w:xz", preset=9) as archive:
        archive.add(node.state, "state", filter=kept)
        archive.add(node.config, "dicomnode.yaml", filter=kept)


def thaw(fixture: Path, folder: Path) -> None:
    """Unpack a fixture: `state` and `dicomnode.yaml`; its times become those of today.

    Otherwise a test would depend on its date: what waits is given up after days.
    """
    with tarfile.open(fixture / "state.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    frozen_at = datetime.fromisoformat(
        json.loads((fixture / "manifest.json").read_text())["frozen_at"]
    )
    passed = datetime.now(UTC) - frozen_at
    with closing(sqlite3.connect(folder / "state" / "ledger.sqlite")) as database:
        for table, column in _times(database):
            for key, value in database.execute(
                f'SELECT rowid, "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL'
            ).fetchall():
                later = (datetime.fromisoformat(value) + passed).isoformat(" ", "microseconds")
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (later, key)
                )
        database.commit()


def _times(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = [
        name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    return [
        (table, column)
        for table in tables
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")')
        if kind == "DATETIME"
    ]


def study_states(node: Node) -> dict[str, str]:
    """Return the state of each study of the fixture, by its name."""
    with node.ledger.reading() as connection:
        rows = connection.execute(select(study.c.study_uid, study.c.state)).all()
    found = {row.study_uid: row.state for row in rows}
    return {name: found[uid_of(name)] for name in STUDIES}


if __name__ == "__main__":
    freeze(FIXTURES)
