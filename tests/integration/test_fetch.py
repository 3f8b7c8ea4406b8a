"""Studies are fetched from real archives, by C-MOVE and C-GET, into the same spool and ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from nodes import Node
from peers import HOST, Dcmqrscp, Dcmtk, Orthanc, free_port, wait_until
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from shapes import assert_said
from small_ct import CT, encoded, instance
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.commands.fetching import fetch_studies
from dicomnode.errors import SettingsError
from dicomnode.instances import file_prefix
from dicomnode.services.common import open_context
from dicomnode.spool import RoleIsRunningError, Spool

STUDY = "1.2.826.0.1.3680043.8.498.7"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MEMBERS = [(1, number, CT) for number in range(3)] + [(2, 0, SECONDARY_CAPTURE)]


@dataclass(frozen=True, slots=True)
class Ended:
    """What `dicomnode fetch` ended with."""

    code: int
    out: str
    err: str


def run(node: Node, *studies: str, series: str | None = None, peer: str | None = None) -> Ended:
    """Do what `dicomnode fetch` does, for a node, in this process."""
    out, err = Console(file=StringIO(), width=200), Console(file=StringIO(), width=200)
    code = fetch_studies(node.settings, studies or (STUDY,), series, peer, out, err)
    texts = [one.file.getvalue() for one in (out, err) if isinstance(one.file, StringIO)]
    return Ended(code, *texts)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of a CT series of three instances and a secondary capture, years old."""
    folder = tmp_path / "study"
    folder.mkdir()
    for series, number, sop_class in MEMBERS:
        uid = f"{STUDY}.{series}.{number + 1}"
        dataset = instance(
            StudyInstanceUID=STUDY,
            SeriesInstanceUID=f"{STUDY}.{series}",
            SOPInstanceUID=uid,
            SOPClassUID=sop_class,
            Modality="CT" if sop_class == CT else "OT",
            SeriesNumber=series,
            StudyDate="20200102",
            StudyTime="030405",
            StudyID="S1",
            InstanceNumber=number + 1,
        )
        prefix = file_prefix(sop_class, uid, ExplicitVRLittleEndian)
        (folder / f"{uid}.dcm").write_bytes(prefix + encoded(dataset))
    return folder


Made = Callable[..., Node]


@pytest.fixture
def fetching(node: Made) -> Made:
    """Make a node whose peer ARCHIVE may be asked: keywords go to that peer's configuration."""

    def make(*commands: str, port: int, ae_title: str, **peer: Any) -> Node:
        made = node(
            quiet_seconds=60.0,
            overrides={
                "peers": {"ARCHIVE": {"ae_title": ae_title, "port": port, "query": True, **peer}},
                "rules": [],
                "send": {"timeout_seconds": 5.0},
                "fetch": {"silence_seconds": 10.0},
            },
        )
        return made.start(*commands) if commands else made

    return make


def bodies(folder: Path) -> dict[str, bytes]:
    """Return file name -> what follows the File Meta Information's preamble, by the pixels."""
    return {path.name: path.read_bytes()[-32:] for path in sorted(folder.rglob("*.dcm"))}


def check(fetched: Node, study: Path, method: str) -> None:
    """All of the study lies here, the ledger says who fetched it, and nothing else happened."""
    assert bodies(fetched.spool / "instances") == bodies(study)
    status = fetched.status()
    (row,) = status["fetches"]
    assert (row["state"], row["method"], row["peer"]) == ("FETCHED", method, "ARCHIVE")
    assert (row["expected"], row["completed"], row["failed"]) == (4, 4, 0)
    assert row["requested_by"]
    assert {one["calling_ae"] for one in status["associations"]} == {
        fetched.document["peers"]["ARCHIVE"]["ae_title"]
    }
    assert fetched.attention() == []
    left = (fetched.spool / "arriving" / "fetch").glob("*")
    assert [path for path in left if path.stat().st_size] == []


# Orthanc


def test_orthanc_by_c_move_and_again(
    fetching: Made, orthanc: Orthanc, dcmtk: Dcmtk, study: Path
) -> None:
    dcmtk.storescu(orthanc.port, study, called="ARCHIVE")
    fetched = fetching("receive", "tick", port=orthanc.port, ae_title="ARCHIVE")
    orthanc.add_modality("NODE", "DICOMNODE", fetched.port)
    done = run(fetched)
    assert done == Ended(0, f"{STUDY}: 4 instances from ARCHIVE by C-MOVE\n", "")
    check(fetched, study, "MOVE")
    # It is complete, and closes without waiting until it was quiet for a minute.
    status = fetched.wait_for(lambda s: s["studies"][0]["state"] == "CLOSED", 5)
    assert "FETCHED" in [event["detail"] for event in fetched.events(STUDY)][-1]

    said = CliRunner().invoke(
        cli.app, ["fetch", str(fetched.config), "--study", STUDY, "--from", "ARCHIVE", "--json"]
    )
    assert said.exit_code == 0
    assert_said("fetch", json.loads(said.stdout))
    assert json.loads(said.stdout)[0]["instances"] == 4
    status = fetched.wait_for(lambda s: s["studies"][0]["state"] == "CLOSED", 5)
    assert status["counts"]["instances"] == 4
    assert fetched.attention() == []


def test_orthanc_by_c_get(fetching: Made, orthanc: Orthanc, dcmtk: Dcmtk, study: Path) -> None:
    dcmtk.storescu(orthanc.port, study, called="ARCHIVE")
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    fetched = fetching(port=orthanc.port, ae_title="ARCHIVE", accept=False)
    done = run(fetched)
    assert done == Ended(0, f"{STUDY}: 4 instances from ARCHIVE by C-GET\n", "")
    check(fetched, study, "GET")


# dcmqrscp


def test_dcmqrscp_by_c_move(
    fetching: Made, start_dcmqrscp: Callable[..., Dcmqrscp], dcmtk: Dcmtk, study: Path
) -> None:
    fetched = fetching(port=free_port(), ae_title="DCMQR", retrieve="move")
    archive = start_dcmqrscp(moves_to={"DICOMNODE": fetched.port})
    fetched.write_config({"peers": {"ARCHIVE": {"port": archive.port}}})
    dcmtk.storescu(archive.port, study, called="DCMQR")

    without = run(fetched)
    assert (without.code, "RECEIVER_NOT_RUNNING" in without.err) == (1, True)
    fetched.start("receive")
    done = run(fetched)
    assert done.code == 0, done.err


def test_dcmqrscp_by_c_get(
    fetching: Made, start_dcmqrscp: Callable[..., Dcmqrscp], dcmtk: Dcmtk, study: Path
) -> None:
    """It does not say which SOP Classes it has, and does not know the node as a destination."""
    archive = start_dcmqrscp()
    dcmtk.storescu(archive.port, study, called="DCMQR")
    fetched = fetching("receive", port=archive.port, ae_title="DCMQR")
    done = run(fetched)
    assert done == Ended(0, f"{STUDY}: 4 instances from ARCHIVE by C-GET\n", "")
    check(fetched, study, "GET")


# Whatever the archive holds


def test_instances_come_as_they_are_compressed(
    fetching: Made, orthanc: Orthanc, test_data: Path
) -> None:
    """One class in every transfer syntax that Orthanc keeps, and none of them is transcoded."""
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    held: dict[str, pydicom.Dataset] = {}
    for number, path in enumerate(sorted((test_data / "transfer-syntaxes").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.77.{number}"
        buffer = BytesIO()
        dataset.save_as(buffer)
        orthanc.post("/instances", buffer.getvalue())
        held[dataset.SOPInstanceUID] = dataset
    assert len({one.file_meta.TransferSyntaxUID for one in held.values()}) == 15
    study_uid = dataset.StudyInstanceUID
    fetched = fetching(port=orthanc.port, ae_title="ARCHIVE", retrieve="get")
    done = run(fetched, study_uid)
    assert done == Ended(0, f"{study_uid}: 16 instances from ARCHIVE by C-GET\n", "")
    for path in fetched.files():
        came = pydicom.dcmread(path)
        assert came.file_meta.TransferSyntaxUID == (
            held[came.SOPInstanceUID].file_meta.TransferSyntaxUID
        )
        assert came.PixelData == held[came.SOPInstanceUID].PixelData


def test_one_series_of_a_study(fetching: Made, orthanc: Orthanc, dcmtk: Dcmtk, study: Path) -> None:
    dcmtk.storescu(orthanc.port, study, called="ARCHIVE")
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    fetched = fetching(port=orthanc.port, ae_title="ARCHIVE", retrieve="get")
    series = f"{STUDY}.2"
    done = run(fetched, series=series)
    assert done == Ended(0, f"{series}: 1 instances from ARCHIVE by C-GET\n", "")
    assert [path.stem for path in fetched.files()] == [f"{series}.1"]
    unknown = run(fetched, series=f"{STUDY}.3")
    assert (unknown.code, "UNKNOWN_STUDY" in unknown.err) == (3, True)


@pytest.mark.parametrize("method", ["move", "get"])
def test_what_is_refused_here_is_said(
    fetching: Made, orthanc: Orthanc, dcmtk: Dcmtk, study: Path, method: str
) -> None:
    """The archive has one instance with other pixels than were stored here before."""
    fetched = fetching("receive", port=orthanc.port, ae_title="ARCHIVE", retrieve=method)
    orthanc.add_modality("NODE", "DICOMNODE", fetched.port)
    dcmtk.storescu(fetched.port, study)
    path = study / f"{STUDY}.1.2.dcm"
    changed = pydicom.dcmread(path)
    changed.PixelData = bytes(32)
    changed.save_as(path)
    dcmtk.storescu(orthanc.port, study, called="ARCHIVE")

    done = run(fetched)
    assert (done.code, done.out) == (1, ""), done.err
    (row,) = fetched.status()["fetches"]
    assert row["state"] == "FAILED"
    # To C-MOVE Orthanc says no more than that it failed.
    assert row["reason"] == ("STATUS_C000" if method == "move" else "PARTLY_FETCHED")
    assert row["detail"].endswith("4 of 4 instances lie here")
    assert (f"  failed: {STUDY}.1.2" in done.err) == (method == "get")
    assert fetched.attention() == ["PIXELS_DIFFER"]
    assert len(fetched.quarantine()) == 1


# Whom to ask


def test_the_next_peer_is_asked_where_the_first_does_not_know_it(
    fetching: Made, start_orthanc: Callable[..., Orthanc], dcmtk: Dcmtk, study: Path
) -> None:
    first, second = start_orthanc(ae_title="FIRST"), start_orthanc(ae_title="SECOND")
    fetched = fetching(port=first.port, ae_title="FIRST", retrieve="get")
    for archive in (first, second):
        archive.add_modality("NODE", "DICOMNODE", free_port())
    other = {"ae_title": "SECOND", "host": HOST, "port": second.port, "query": True}
    fetched.write_config({"peers": {"OTHER": other}})
    dcmtk.storescu(second.port, study, called="SECOND")
    assert run(fetched).out == f"{STUDY}: 4 instances from OTHER by C-GET\n"

    unknown = run(fetched, STUDY + "9", peer="ARCHIVE")
    assert unknown == Ended(
        3, "", f"{STUDY}9: ARCHIVE: UNKNOWN_STUDY: the archive has nothing of it\n"
    )
    # One of the two cannot be asked: it may have the study, and another try may find it.
    second.kill()
    away = run(fetched, STUDY + "9")
    assert (away.code, "NO_CONNECTION" in away.err) == (1, True)
    assert [row["reason"] for row in fetched.status()["fetches"]] == [
        "NO_CONNECTION",
        "UNKNOWN_STUDY",
        None,
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"peer": "NOBODY"}, "no peer is named 'NOBODY'"),
        ({"peer": "MODALITY"}, "lacks `query: true`"),
        ({"series": "../.."}, "expect a UID"),
    ],
)
def test_a_wrong_command_begins_nothing(
    fetching: Made, arguments: dict[str, str], words: str
) -> None:
    fetched = fetching(port=free_port(), ae_title="ARCHIVE")
    with pytest.raises(SettingsError, match=words):
        run(fetched, **arguments)  # type: ignore[arg-type]
    assert not fetched.state.exists()


def test_nobody_may_be_asked(node: Made) -> None:
    with pytest.raises(SettingsError, match="none has `query: true`"):
        run(node())


def test_one_fetches_at_a_time(fetching: Made) -> None:
    fetched = fetching(port=free_port(), ae_title="ARCHIVE")
    with Spool(fetched.spool).only("fetch"), pytest.raises(RoleIsRunningError):
        run(fetched)


# As a process


def command(node: Node, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dicomnode", "fetch", str(node.config), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_it_may_be_stopped_or_die_and_is_done_again(
    fetching: Made, orthanc: Orthanc, tmp_path: Path
) -> None:
    """What was stored stays, what is unfinished goes, and the next fetch brings the rest."""
    count = 120
    for number in range(count):
        uid = f"{STUDY}.1.{number + 1}"
        dataset = instance(
            StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=uid
        )
        orthanc.post("/instances", file_prefix(CT, uid, ExplicitVRLittleEndian) + encoded(dataset))
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    fetched = fetching(port=orthanc.port, ae_title="ARCHIVE", retrieve="get")
    open_context(fetched.settings, "test").ledger.close()  # makes the tables
    here = 0
    for number in (signal.SIGINT, signal.SIGKILL):
        process = command(fetched, "--study", STUDY)
        enough = here + 2
        wait_until(lambda: len(fetched.files()) > enough, 20, "it has begun", every=0.01)  # noqa: B023
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        stored = {path.stem for path in fetched.files()}
        assert here < len(stored) < count, "it was too quick for this test"
        here = len(stored)
        if number == signal.SIGINT:
            assert (process.returncode, "CANCELLED" in err) == (1, True)
        assert fetched.status()["counts"]["instances"] in (here, here - 1)
    done = run(fetched)
    assert done.out == f"{STUDY}: {count} instances from ARCHIVE by C-GET\n"
    assert fetched.status()["counts"]["instances"] == count
    left = (fetched.spool / "arriving" / "fetch").glob("*")
    assert [path for path in left if path.stat().st_size] == []
    assert [row["state"] for row in fetched.status()["fetches"]] == [
        "FETCHED",
        "FETCHING",
        "FAILED",
    ]
