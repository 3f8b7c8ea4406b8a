"""`studies`, `jobs`, `deliveries` and `probe`: what they list, and what real archives take."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import COMPREHENSIVE, PICTURE, SEGMENTATION, ScriptedArchive
from certificates import Authority
from ledger_kit import QUIET_SECONDS, analysed, claimed, close, fail, header, receive, settle, taken
from nodes import Node
from peers import HOST, Orthanc, free_port
from pynetdicom import AE
from typer.testing import CliRunner, Result

from dicomnode import cli
from dicomnode.domain.identifiers import SOPClassUID
from dicomnode.domain.outcomes import Refuse
from dicomnode.ledger import Ledger, overview
from dicomnode.network.sockets import VERIFICATION
from dicomnode.probing import would_get
from dicomnode.services.common import open_context

Facts = dict[str, Any]


def run(*arguments: object) -> Result:
    """Run a command here; what is refused by name has its exit code, as `main` gives it."""
    given = [str(word) for word in arguments]
    return CliRunner().invoke(cli.app, given, env={"COLUMNS": "200", "NO_COLOR": "1"})


# Lists


def test_lists_are_newest_first_and_by_state(ledger: Ledger, clock: Any) -> None:
    analysed(ledger, clock, header("1.1"), header("1.2"))
    settle(ledger, taken(ledger), Refuse("STATUS_C000", "no"), status=0xC000)
    receive(ledger, header("1.3", study="1.7"))
    clock.forward(QUIET_SECONDS)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse("GANTRY_TILT", "tilted"))

    def listing(what: str, *states: str, limit: int = 50) -> list[Facts]:
        with ledger.transaction() as tx:
            return overview.listing(tx, what, states=states, limit=limit)

    assert {row["study_uid"] for row in listing("study")} == {"1.2", "1.7"}
    assert listing("study", "HELD") == []
    assert [row["state"] for row in listing("job")] == ["REFUSED", "DONE"]
    assert [row["reason"] for row in listing("job", "REFUSED", "QUEUED")] == ["GANTRY_TILT"]
    assert len(listing("job", limit=1)) == 1
    assert {row["state"] for row in listing("delivery", "REFUSED")} == {"REFUSED"}
    assert listing("delivery", "PENDING") == []


def test_the_commands_list_and_filter(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    context = open_context(node.settings, "receive")
    receive(context.ledger, header("1.3", study="1.7"))
    context.ledger.close()
    asked = run("studies", "--json", "-c", node.config)
    assert [row["study_uid"] for row in json.loads(asked.stdout)] == ["1.7"]
    shown = run("studies", "--state", "open", "-c", node.config)
    assert shown.exit_code == 0
    assert "1.7" in shown.stdout
    assert "Studies: none" in run("studies", "--state", "HELD", "-c", node.config).stdout
    assert json.loads(run("jobs", "--json", "-c", node.config).stdout) == []
    assert "Deliveries: none" in run("deliveries", "-c", node.config).stdout
    wrong = run("jobs", "--state", "OPEN", "-c", node.config)
    assert "--state OPEN: expected one of CANCELLED, DONE, LEASED" in str(wrong.exception)


# What would go is the table of alternatives


def test_what_a_destination_would_get() -> None:
    def gets(takes: str, *refused: str) -> list[tuple[str, str] | None]:
        found = would_get(takes.split(), [SOPClassUID(one) for one in refused])
        went = found.values()
        return [None if one is None else (one.kind, one.sop_class_uid[24:]) for one in went]

    label_map, seg = "1.2.840.10008.5.1.4.1.1.66.7", SEGMENTATION
    best = "1.2.840.10008.5.1.4.1.1.88.34"
    assert gets("seg preview sr") == [("seg", "66.4"), ("preview", "7"), ("sr", "88.34")]
    assert gets("labelmap", label_map) == [("seg", "66.4")]
    assert gets("labelmap", label_map, seg) == [None]
    assert gets("seg preview sr", best) == [("seg", "66.4"), ("preview", "7"), ("sr", "88.33")]
    without = would_get(["seg", "preview", "sr"], [SOPClassUID(seg)])
    assert without["seg"] is None
    assert without["sr"] is not None
    assert without["sr"].refers_to == ("preview",)


# Real archives


def probed(node: Node, *more: str) -> tuple[int, Facts]:
    done = run("probe", "archive", "--json", "-c", node.config, *more)
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("knows_label_maps", [False, True])
def test_orthanc(
    start_orthanc: Callable[..., Orthanc], tmp_path: Path, knows_label_maps: bool
) -> None:
    archive = start_orthanc(options={"UnknownSopClassAccepted": knows_label_maps})
    over = {"destinations": {"archive": {"profile": "modern"}}}
    node = Node(tmp_path / "node", archive=archive, overrides=over)
    code, facts = probed(node)
    assert (code, facts["answer"], facts["echo"], facts["tls"]) == (0, "DONE", "DONE", None)
    assert facts["commitment"] is True
    takes = {row["kind"]: row["accepts"] for row in facts["objects"]}
    assert "Deflated Explicit VR Little Endian" in takes["seg"]
    assert bool(takes["labelmap"]) is knows_label_maps
    assert [row["gets"] for row in facts["profile"]] == [
        "labelmap" if knows_label_maps else "seg",
        "preview",
        "sr",
    ]
    shown = run("probe", "archive", "-c", node.config)
    assert shown.exit_code == 0
    assert "storage commitment: offered" in shown.stdout


def test_an_archive_that_takes_no_segmentation(tmp_path: Path) -> None:
    archive = ScriptedArchive(classes=[PICTURE, COMPREHENSIVE]).start()
    try:
        code, facts = probed(Node(tmp_path / "node", archive=archive.port))
    finally:
        archive.stop()
    assert code == 1, "the segmentation has nothing in its place"
    assert (facts["answer"], facts["commitment"]) == ("DONE", False)
    gets = {row["wanted"]: row for row in facts["profile"]}
    assert gets["seg"]["gets"] is None
    assert gets["sr"]["sop_class"] == "Comprehensive SR Storage"
    assert gets["sr"]["refers_to"] == ["preview"]
    assert archive.came == [], "nothing is stored by asking"


def test_an_archive_that_is_away(tmp_path: Path) -> None:
    code, facts = probed(Node(tmp_path / "node", archive=free_port()))
    assert (code, facts["answer"]) == (1, "NO_CONNECTION")


@pytest.mark.peer("openssl")
def test_an_archive_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.sign("archive")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    ae = AE(ae_title="ARCHIVE")
    ae.add_supported_context(VERIFICATION)
    port = free_port()
    listening = ae.start_server((HOST, port), block=False, ssl_context=context)
    try:
        tls = {"ca": str(authority.certificate)}
        over = {"peers": {"ARCHIVE": {"tls": tls}}}
        code, facts = probed(Node(tmp_path / "node", archive=port, overrides=over))
    finally:
        listening.shutdown()
    assert facts["tls"].startswith("TLSv1.3, TLS_")
    assert (code, facts["echo"]) == (1, "DONE")
    assert [row["gets"] for row in facts["profile"]] == [None, None, None]
