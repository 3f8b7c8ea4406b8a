"""Every command line in the texts is run, on a node with something of everything and an Orthanc.

Words in capitals, and names and paths of examples, are what stands for the reader's own.
"""

from __future__ import annotations

import getpass
import importlib.util
import logging
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ledger_kit import QUIET_SECONDS, analysed, claimed, close, fail, header, receive, settle, taken
from nodes import Node
from peers import Orthanc
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import CT, encoded, instance

from dicomnode import cli
from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.outcomes import Refuse
from dicomnode.instances import file_prefix
from dicomnode.ledger import Ledger, presence
from dicomnode.ledger.tables import event, job
from dicomnode.services.common import open_context
from dicomnode.spool import Spool
from dicomnode.users import Users

ROOT = Path(__file__).resolve().parents[2]
_FOUND = importlib.util.spec_from_file_location(
    "documented", ROOT / "tests/unit/test_docs_commands.py"
)
assert _FOUND is not None
assert _FOUND.loader is not None
_DOCUMENTED = importlib.util.module_from_spec(_FOUND)
_FOUND.loader.exec_module(_DOCUMENTED)
LINES: dict[str, str] = _DOCUMENTED.LINES

ELSEWHERE = {
    "run": "tests/e2e/test_start.py",
    "demo": "tests/e2e/test_start.py",
    **dict.fromkeys(("receive", "tick", "work", "send"), "tests/faults/test_kill.py"),
    "web": "tests/web/test_commands.py",
    "segment": "tests/e2e/test_commands.py",
    "models install": "tests/integration/test_models_verbs.py",
    "models import": "tests/integration/test_models_verbs.py",
    "models commission": "tests/integration/test_models_verbs.py",
}
"""What runs on, or needs weights: where real ones of it are run."""
ENDS = {
    "analyze": 2,  # the series of the ledger has no images that could be analysed
    "echo --query": 0,
    "health": 1,  # no role runs
    "models verify total-v1": 1,  # it is not installed here
    "quarantine release": 1,  # what lies there is no DICOM
}
"""Where a line ends with something else than 0."""
STUDY = "1.2.826.0.1.3680043.8.498.9"
QUARANTINED = "0123456789abcdef" * 2
PEOPLE = ("anna", "vera", "prometheus", "NAME")


def name_of(line: str) -> str:
    """Return the command of a line."""
    first, second = (*line.split()[1:3], "")[:2]
    return f"{first} {second}" if first in ("models", "users", "quarantine") else first


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc with a study; one for all lines."""
    made = Orthanc(tmp_path_factory.mktemp("orthanc"), modalities={"node": ("DICOMNODE", 1)})
    made.start()
    dataset = instance(StudyInstanceUID=STUDY)
    made.post(
        "/instances",
        file_prefix(CT, dataset.SOPInstanceUID, ExplicitVRLittleEndian) + encoded(dataset),
    )
    yield made
    made.stop()


def node_in(folder: Path, archive: Orthanc) -> Node:
    peer = {"query": True, "retrieve": "get"}
    return Node(folder, archive=archive, overrides={"peers": {"ARCHIVE": peer}})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, archive: Orthanc) -> Path:
    """A node's state: a study that was analysed, one that was refused, one held."""
    made = node_in(tmp_path_factory.mktemp("prepared"), archive)
    clock = Clock()
    open_context(made.settings, "receive").ledger.close()
    ledger = Ledger(made.settings.ledger_url, "node-1", clock)
    with ledger.transaction() as tx:
        presence.start(tx, "work", 4711)
    analysed(ledger, clock, header("1.1"), header("1.2"))
    settle(ledger, taken(ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    receive(ledger, header("1.3", study="1.7", series="1.7.1"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("GANTRY_TILT", "tilted"))
    receive(ledger, header("1.4", study="1.8", series="1.8.1"))
    other = PatientKey("somebody else")
    receive(ledger, header("1.5", study="1.8", series="1.8.1", patient_key=other))
    ledger.close()
    spool = Spool(made.spool)
    spool.create()
    (spool.quarantine / f"{QUARANTINED}.dcm").write_bytes(b"no DICOM")
    return made.state


@pytest.fixture
def node(tmp_path: Path, prepared: Path, archive: Orthanc) -> Node:
    """A node of a test's own, in that state."""
    made = node_in(tmp_path / "node", archive)
    shutil.copytree(prepared, made.state)
    return made


class Clock:
    """It stands until it is told to go on."""

    def __init__(self) -> None:
        """Begin in the past."""
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Reader:
    """Puts what is the reader's own in the place of what stands for it."""

    def __init__(self, node: Node, folder: Path) -> None:
        """Prepare what lines name."""
        self.node = node
        self.folder = folder
        (folder / "ct").mkdir()
        dataset = instance()
        prefix = file_prefix(CT, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
        (folder / "ct" / "1.dcm").write_bytes(prefix + encoded(dataset))

    def words(self, line: str) -> list[str]:
        """Return a line's words, as they are typed here."""
        name = name_of(line)
        self.prepare(name, line)
        values = {
            **dict.fromkeys(("CONFIG", "dicomnode.yaml"), str(self.node.config)),
            **dict.fromkeys(("UID", "1.2.3", "1.2.3.4"), self.uid(name)),
            **dict.fromkeys(("DESTINATION", "pacs"), "archive"),
            **dict.fromkeys(("PEER", "PACS"), "ARCHIVE"),
            **dict.fromkeys(("FOLDER", "/data/ct", "/data/study"), str(self.folder / "ct")),
            **dict.fromkeys(
                ("FILE", "/backup/node.backup", "/backup/node.tar.gz"), str(self.folder / "backup")
            ),
            **dict.fromkeys(("N", "12", "7", "8"), str(self.number(name))),
        }
        if name.startswith("quarantine"):
            values["NAME"] = QUARANTINED
        return [values.get(w, w) for w in shlex.split(re.sub(r"\s+#.*$", "", line))[1:]]

    def prepare(self, name: str, line: str) -> None:
        if name.startswith("users") and name != "users list":
            users = Users(self.node.settings.users_file)
            for person in PEOPLE:
                if name != "users add" or person not in line.split():
                    users.add(person, "viewer", None)
        if name == "recover":
            self.node.settings.patient_key_file.stat()
            run(["backup", str(self.folder / "backup"), "-c", str(self.node.config)])

    def uid(self, name: str) -> str:
        return {"release": "1.8", "fetch": STUDY, "analyze": "1.2.3"}.get(name, "1.2")

    def number(self, name: str) -> int:
        with self.node.ledger.transaction() as tx:
            table = job if name == "requeue" else event
            which = job.c.state == "REFUSED" if name == "requeue" else event.c.level == "attention"
            return int(tx.connection.execute(table.select().where(which)).first().id)


def run(words: list[str]) -> int:
    """Run the program in this process; return how it ended."""
    umask, before = os.umask(0o077), sys.argv
    sys.argv = ["dicomnode", *words]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
        os.umask(umask)
    return 0


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("line", [one for one in sorted(LINES) if name_of(one) not in ELSEWHERE])
def test_a_documented_line_does_what_it_says(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    # Commands set up the log for the stream of their process, which here ends with the test.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setenv("DICOMNODE_CONFIG", str(node.config))
    monkeypatch.setattr(getpass, "getpass", lambda _prompt="": "correct horse battery")
    words = Reader(node, tmp_path).words(line)
    expected = next((code for key, code in ENDS.items() if line[10:].startswith(key)), 0)
    assert run(words) == expected, " ".join(words)


def test_what_is_run_elsewhere_is() -> None:
    for name, file in ELSEWHERE.items():
        word = name.split()[-1]
        assert re.search(rf"\b{word}\b", (ROOT / file).read_text()), (name, file)
    assert {name_of(line) for line in LINES} > set(ELSEWHERE)
