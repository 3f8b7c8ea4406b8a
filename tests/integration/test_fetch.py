"""Studies are fetched from real archives, by C-MOVE and C-GET, into the same spool and ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from nodes import Node
from peers import Dcmqrscp, Dcmtk, Orthanc, free_port
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from small_ct import CT, encoded, instance

from dicomnode.fetch_cli import fetch_studies
from dicomnode.instances import file_prefix

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
    assert list((fetched.spool / "tmp" / "fetch").iterdir()) == []


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

    again = run(fetched, peer="ARCHIVE")
    assert again.code == 0
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
