"""What commands say with `--json` is what is written down, where there is something of each.

What needs a model or an archive that is asked is compared in its own tests.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import QUIET_SECONDS, analysed, claimed, close, fail, header, receive, settle, taken
from nodes import Node
from peers import HOST, SYSTEM_PATH, free_port, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from shapes import assert_said
from small_ct import CT, encoded, instance
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.domain.identifiers import PatientKey
from dicomnode.domain.outcomes import Refuse
from dicomnode.instances import file_prefix
from dicomnode.ledger import Ledger, presence
from dicomnode.services.common import open_context
from dicomnode.spool import Spool

PASSWORD = "correct horse battery"
Say = Callable[..., Any]


@pytest.fixture
def node(tmp_path: Path, clock: Any) -> Node:
    """A node with a study that was analysed and refused, one that was refused, and one held."""
    made = Node(tmp_path / "node", archive=free_port())
    open_context(made.settings, "receive").ledger.close()
    ledger = Ledger(made.settings.ledger_url, "node-1", clock)
    with ledger.transaction() as tx:
        presence.start(tx, "work", 4711)
    analysed(ledger, clock, header("1.1"), header("1.2"), to=("archive", "second"))
    settle(ledger, taken(ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    receive(ledger, header("1.3", study="1.7", series="1.7.1"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("GANTRY_TILT", "tilted"))
    receive(ledger, header("1.4", study="1.8", series="1.8.1"))
    receive(
        ledger,
        header("1.5", study="1.8", series="1.8.1", patient_key=PatientKey("somebody else")),
    )
    ledger.close()
    return made


@pytest.fixture
def say(node: Node) -> Say:
    """Run a command with --json, compare what it says with what is written, and return it."""

    def run(name: str, *more: object, code: int = 0, says: str | None = None) -> Any:
        words = [*name.removesuffix(" --study").split(), *map(str, more)]
        given = [*words, "--json", *([] if name == "version" else ["-c", str(node.config)])]
        done = CliRunner().invoke(cli.app, given, input=says)
        assert done.exit_code == code, (done.output, done.exception)
        said = json.loads(done.stdout)
        assert_said(name, said)
        return said

    return run


def test_the_ledgers_facts(say: Say) -> None:
    overview = say("status")
    silent = say("health", "--roles", "work send", code=1)
    assert silent == {"node_id": "node-1", "silent": ["work", "send"]}
    assert {row["state"] for row in overview["studies"]} == {"CLOSED", "HELD"}
    # Nothing of this would be compared if the lists were empty.
    for name in ("roles", "nodes", "attention", "series", "jobs", "deliveries", "destinations"):
        assert overview[name], name
    one = say("status --study", "--study", "1.7")
    assert one["series"]
    assert one["events"]
    assert len(say("studies")) == 3
    assert {row["state"] for row in say("jobs")} == {"DONE", "REFUSED"}
    assert {row["state"] for row in say("deliveries")} == {"REFUSED", "PENDING"}


def test_acts(say: Say) -> None:
    assert say("acknowledge")["count"] > 0
    delivery = say("deliveries", "--state", "REFUSED")[0]["id"]
    refused = next(row for row in say("jobs") if row["state"] == "REFUSED")
    assert say("requeue", "--job", refused["id"]) == {"act": "requeue", "count": 1}
    assert say("requeue", "--delivery", delivery)["count"] >= 1
    assert say("release", "1.8", "--reason", "settled") == {"act": "release", "count": 1}
    assert say("release", "1.8", "--reason", "again", code=1)["count"] == 0
    assert say("analyze", "1.2.999", code=1) == {"act": "analyze", "count": 0}
    assert say("withdraw", "1.2", "--reason", "wrong")["count"] >= 1


def test_the_configuration(say: Say, node: Node) -> None:
    assert say("version")
    assert say("check") == {"file": str(node.config), "good": True, "faults": []}
    node.config.write_text("node: {ae_titel: X}\nrules: [{name: a, model: none}]\n")
    (fault,) = say("check", code=2)["faults"]
    assert (fault["line"], fault["column"], fault["key"]) == (1, 8, "node.ae_titel")
    assert fault["message"].endswith("did you mean 'ae_title'?")
    node.config.write_text("rules: [{name: a, model: none}]\n")
    (fault,) = say("check", code=2)["faults"]
    assert (fault["key"], fault["line"]) == ("rules.0.model", 1)
    node.config.write_text("a: [\n")
    assert say("check", code=2)["good"] is False


def test_the_ledger_is_kept(say: Say, node: Node, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    assert say("backup", file) == {"file": str(file), "size": file.stat().st_size}
    assert say("recover", "--backup", file)["done"]


def test_the_rules(say: Say, tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    dataset = instance()
    prefix = file_prefix(CT, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
    (tmp_path / "ct" / "1.dcm").write_bytes(prefix + encoded(dataset))
    (study,) = say("rules", tmp_path / "ct")
    assert [rule["matches"] for rule in study["series"][0]["rules"]] == [False]
    (study,) = say("rules", "--study", "1.2")
    assert study["series"][0]["choice_code"] == "NOT_HU"


def test_the_quarantine(say: Say, node: Node) -> None:
    spool = Spool(node.spool)
    spool.create()
    name = "0123456789abcdef" * 2
    (spool.quarantine / f"{name}.dcm").write_bytes(b"no DICOM")
    found = say("quarantine list")
    assert (found["count"], found["bytes"]) == (1, 8)
    assert say("quarantine release", name, code=1)["count"] == 0
    assert say("quarantine discard", name, "--reason", "no DICOM")["count"] == 1
    assert say("quarantine discard", name, "--reason", "again", code=1)["count"] == 0
    assert say("quarantine release", name, code=1)["code"] is None


def test_users(say: Say) -> None:
    add = ("vera", "--role", "operator", "--password-stdin")
    assert say("users add", *add, says=f"{PASSWORD}\n")["role"] == "operator"
    assert say("users passwd", "vera", "--password-stdin", says=f"{PASSWORD}2\n")
    assert say("users token", "vera")["token"]
    (vera,) = say("users list")
    assert say("users token", "vera", "--revoke", vera["tokens"][0]["id"])["act"] == "revoked"
    assert say("users remove", "vera")["act"] == "removed"


def test_models(say: Say) -> None:
    assert len(say("models list")) > 3
    assert say("models show", "demo")["demonstration"]
    assert say("models verify", "demo") == [{"model": "demo", "good": True, "fault": ""}]


def test_peers_that_are_away(say: Say) -> None:
    assert say("echo", "archive", code=1)["answer"] == "NO_CONNECTION"
    assert say("probe", "archive", code=1)["answer"] == "NO_CONNECTION"


# DCMTK's storescp


@pytest.fixture
def storescp(node: Node, tmp_path: Path) -> Iterator[Path]:
    """Run it where the node sends to; return the folder that it stores in."""
    port = node.document["peers"]["ARCHIVE"]["port"]
    stored = tmp_path / "stored"
    stored.mkdir()
    program = shutil.which("storescp", path=SYSTEM_PATH)
    assert program is not None
    process = subprocess.Popen([program, "-aet", "ARCHIVE", "-od", str(stored), str(port)])
    try:
        dcmtk = shutil.which("echoscu", path=SYSTEM_PATH)
        asked = [str(dcmtk), "-aec", "ARCHIVE", HOST, str(port)]
        wait_until(
            lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0,
            20,
            "storescp answers",
        )
        yield stored
    finally:
        process.kill()
        process.wait()


@pytest.mark.peer("dcmtk")
def test_storescp(say: Say, storescp: Path) -> None:
    assert say("echo", "archive") == {"name": "archive", "answer": "DONE", "detail": ""}
    facts = say("probe", "archive")
    assert (facts["answer"], facts["echo"], facts["tls"]) == ("DONE", "DONE", None)
    assert facts["commitment"] is False
    takes = {row["kind"]: row["accepts"] for row in facts["objects"]}
    assert takes["seg"] == ["Explicit VR Little Endian", "Implicit VR Little Endian"]
    assert [row["gets"] for row in facts["profile"]] == ["seg", "preview", "sr"]
    assert list(storescp.iterdir()) == [], "nothing is stored by asking"
