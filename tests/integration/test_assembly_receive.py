"""Studies as they come over sockets: interleaved, in pieces, again, late, mixed up, rejected."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from nodes import Node, Status
from peers import Dcmtk
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from scu import Wire, scu, store
from small_ct import CT, encoded, instance

from dicomnode.instances import file_prefix

QUIET_SECONDS = 1.0
PEERS = {
    "CALM": {  # not closed between two associations on a busy machine
        "ae_title": "CALM",
        "host": "127.0.0.1",
        "accept": True,
        "study_quiet_seconds": 4.0,
    },
    "PACS": {"ae_title": "PACS", "host": "127.0.0.1", "accept": True, "authority": True},
    # Two of one AE title: who comes from here is the second one.
    "TWIN": {
        "ae_title": "TWIN",
        "host": "127.0.0.1",
        "accept": True,
        "authority": True,
        "addresses": ["192.0.2.1"],
    },
    "TWIN2": {"ae_title": "TWIN", "host": "127.0.0.1", "accept": True},
    "SLOW": {
        "ae_title": "SLOW",
        "host": "127.0.0.1",
        "accept": True,
        "study_quiet_seconds": 86400.0,
    },
}
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def silent_port() -> Iterator[int]:
    """Where somebody takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def node_of_all(tmp_path_factory: pytest.TempPathFactory, silent_port: int) -> Iterator[Node]:
    """Receive and tick, for all tests of this module; jobs are queued, and nobody works on them."""
    silent = {"ae_title": "SILENT", "host": "127.0.0.1", "port": silent_port}
    made = Node(
        tmp_path_factory.mktemp("assembly"),
        quiet_seconds=QUIET_SECONDS,
        overrides={
            "peers": PEERS | {"SILENT": silent | {"accept": True, "query": True}},
            "limits": {"max_associations": 100},
            "rules": [{"name": "CT", "model": "demo", "choose": "all"}],
            "assembly": {
                "max_study_age_days": 3.0,
                "end_grace_seconds": 0.2,
                "count_apart_seconds": 0.5,
            },
        },
    )
    try:
        made.start("receive", "tick")
        yield made
        made.stop()
    finally:
        made.close()


@pytest.fixture
def study() -> str:
    """A Study Instance UID that no other test uses."""
    return f"1.2.826.0.1.{next(NUMBERS)}"


def dataset(study: str, series: int, number: int, **changes: Any) -> Dataset:
    """Return an instance of a study: its first one is 1."""
    values = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.{series}",
        "SOPInstanceUID": f"{study}.{series}.{number}",
        "SeriesNumber": series,
        "InstanceNumber": number,
        "ImagePositionPatient": [0, 0, 10 * number],
        "PatientID": study,
    }
    return instance(**(values | changes))


def ct(study: str, series: int, number: int, **changes: Any) -> Wire:
    made = dataset(study, series, number, **changes)
    return Wire(CT, str(made.SOPInstanceUID), ExplicitVRLittleEndian, encoded(made))


def whole(study: str, series: int = 1, count: int = 4, **changes: Any) -> list[Wire]:
    return [ct(study, series, number, **changes) for number in range(1, count + 1)]


def send(node: Node, wires: list[Wire], calling: str = "MODALITY") -> None:
    assert set(store(node.port, *wires, calling=calling)) == {0x0000}


def row_of(status: Status, study: str) -> dict[str, Any]:
    return next((dict(row) for row in status["studies"] if row["study_uid"] == study), {})


def jobs(node: Node, study: str, status: Status | None = None) -> list[tuple[str, int, str]]:
    """Return (series, generation, state) of a study's jobs, oldest first."""
    rows = (status or node.status())["jobs"]
    return [
        (row["series_uid"].removeprefix(f"{study}."), row["generation"], row["state"])
        for row in reversed(rows)
        if row["study_uid"] == study
    ]


def until_closed(node: Node, study: str, times: int = 1) -> None:
    """Wait until a study has closed so many times."""

    def has_closed(_status: Status) -> bool:
        return codes_of(node, study).count("STUDY_CLOSED") >= times

    node.wait_for(has_closed, 20, f"{study} has closed")


def codes_of(node: Node, study: str) -> list[str]:
    return [row["code"] for row in node.events(study)]


# Together


def test_eight_modalities_at_once_with_interleaved_series(node_of_all: Node, study: str) -> None:
    """Each sends the series of its study by turns, over two associations."""

    def modality(number: int) -> str:
        uid = f"{study}.{number}"
        wires = [wire for pair in zip(whole(uid, 1), whole(uid, 2), strict=True) for wire in pair]
        for part in (wires[:5], wires[5:]):
            send(node_of_all, part, calling="CALM")
        return uid

    with ThreadPoolExecutor(8) as threads:
        studies = list(threads.map(modality, range(8)))
    for uid in studies:
        until_closed(node_of_all, uid)
    status = node_of_all.status()
    for uid in studies:
        assert sorted(jobs(node_of_all, uid, status)) == [("1", 1, "QUEUED"), ("2", 1, "QUEUED")]
        assert row_of(status, uid)["instances"] == 8
        assert codes_of(node_of_all, uid).count("STUDY_CLOSED") == 1


def test_one_study_over_several_associations_and_peers(node_of_all: Node, study: str) -> None:
    first, second = whole(study)[:2], whole(study)[2:]
    with (
        scu(node_of_all.port, first, calling="CALM") as one,
        scu(node_of_all.port, second, calling="PACS") as other,
    ):
        for pair in zip(first, second, strict=True):
            assert [one.store(pair[0]), other.store(pair[1])] == [0x0000] * 2
    until_closed(node_of_all, study)
    assert jobs(node_of_all, study) == [("1", 1, "QUEUED")]


def test_a_study_waits_for_its_slowest_peer(node_of_all: Node, study: str) -> None:
    send(node_of_all, whole(study)[:1], calling="SLOW")
    send(node_of_all, whole(study)[1:])
    row = row_of(node_of_all.status(), study)
    wait = datetime.fromisoformat(row["due_at"]) - datetime.fromisoformat(row["last_at"])
    assert timedelta(hours=23) < wait <= timedelta(days=1)
    assert row["state"] == "OPEN"


def test_an_archive_that_never_answers_keeps_no_study_open(node_of_all: Node, study: str) -> None:
    """Its thread waits for it; the studies of others close, and its own do when they are quiet."""
    for number in range(2):
        send(node_of_all, whole(f"{study}.{number}"), calling="SILENT")
    for number in range(2):
        until_closed(node_of_all, f"{study}.{number}")
    send(node_of_all, whole(f"{study}.9"))
    until_closed(node_of_all, f"{study}.9")
    closed = [row_of(node_of_all.status(), f"{study}.{number}") for number in (0, 1, 9)]
    assert [row["closed_by"] for row in closed] == ["QUIET"] * 3
    for row in closed:
        late = datetime.fromisoformat(row["closed_at"]) - datetime.fromisoformat(row["last_at"])
        assert late < timedelta(seconds=8)  # the silence lasts 10 seconds, and there were two


# Again, late, mixed up


def test_a_series_that_is_sent_again_is_analysed_once(node_of_all: Node, study: str) -> None:
    for _ in range(2):
        send(node_of_all, whole(study))
    until_closed(node_of_all, study)
    send(node_of_all, whole(study))  # from the archive, after it was closed
    send(node_of_all, whole(study, ReferringPhysicianName="Other"))  # its headers differ
    assert jobs(node_of_all, study) == [("1", 1, "QUEUED")]
    assert row_of(node_of_all.status(), study)["state"] == "CLOSED"
    assert codes_of(node_of_all, study).count("DUPLICATE") == 8
    assert codes_of(node_of_all, study).count("DUPLICATE_HEADER") == 4


def test_a_late_slice_begins_a_new_generation_of_its_series(node_of_all: Node, study: str) -> None:
    send(node_of_all, [*whole(study, 1), *whole(study, 2)])
    until_closed(node_of_all, study)
    send(node_of_all, [ct(study, 1, 5)])
    until_closed(node_of_all, study, times=2)
    assert sorted(jobs(node_of_all, study)) == [
        ("1", 1, "CANCELLED"),
        ("1", 2, "QUEUED"),
        ("2", 1, "QUEUED"),
    ]


def test_other_pixels_under_a_known_uid_change_nothing(node_of_all: Node, study: str) -> None:
    send(node_of_all, whole(study))
    until_closed(node_of_all, study)
    other = ct(study, 1, 1, PixelData=bytes(32))
    assert store(node_of_all.port, other) == [0xC001]
    assert jobs(node_of_all, study) == [("1", 1, "QUEUED")]
    assert row_of(node_of_all.status(), study)["state"] == "CLOSED"


def test_one_study_uid_with_two_patients_is_held(node_of_all: Node, study: str) -> None:
    send(node_of_all, whole(study)[:2])
    send(node_of_all, whole(study, PatientID="another")[2:])
    send(node_of_all, [ct(f"{study}.9", 1, number) for number in (1, 2)])
    until_closed(node_of_all, f"{study}.9")  # by then this one would have closed, too
    row = row_of(node_of_all.status(), study)
    assert (row["state"], row["hold_reason"]) == ("HELD", "TWO_PATIENTS")
    assert jobs(node_of_all, study) == []


# The end of a series, priors


def test_a_series_that_says_it_is_complete_closes_soon(node_of_all: Node, study: str) -> None:
    wires = whole(study, AcquisitionNumber=1, ImagesInAcquisition=4)
    send(node_of_all, wires[1:], calling="SLOW")
    assert row_of(node_of_all.status(), study)["state"] == "OPEN"
    send(node_of_all, wires[:1], calling="SLOW")
    until_closed(node_of_all, study)
    assert row_of(node_of_all.status(), study)["closed_by"] == "SERIES_ENDED"


def test_a_prior_is_kept_and_said_to_be_one(node_of_all: Node, study: str) -> None:
    send(node_of_all, whole(study, StudyDate="20200102", StudyTime="120000"))
    until_closed(node_of_all, study)
    assert jobs(node_of_all, study) == []
    (row,) = [one for one in node_of_all.status()["series"] if one["study_uid"] == study]
    assert row["instances"] == 4
    assert "days old when it came: kept, not analysed" in row["choice"]


# Rejection notes


def rejection(study: str, numbers: list[int], folder: Path) -> Path:
    """Write a rejection note by highdicom, which knows nothing of this node."""
    named = [dataset(study, 1, number) for number in numbers]
    for one in named:
        one.update({"StudyID": "1", "StudyDate": "", "StudyTime": "", "PatientSex": ""})
        one.ReferringPhysicianName = ""
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.RejectedForQualityReasons, referenced_objects=named
    )
    note = hd.ko.KeyObjectSelectionDocument(
        evidence=named,
        content=content,
        series_instance_uid=f"{study}.8",
        series_number=8,
        sop_instance_uid=f"{study}.8.1",
        instance_number=1,
        manufacturer="Tests",
        institution_name=None,
    )
    path = folder / "note.dcm"
    prefix = file_prefix(note.SOPClassUID, note.SOPInstanceUID, ExplicitVRLittleEndian)
    path.write_bytes(prefix + encoded(note))
    return path


@pytest.mark.peer("dcmtk")
def test_a_rejection_note_of_the_archive_is_honoured_and_a_modalitys_is_not(
    node_of_all: Node, study: str, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    send(node_of_all, whole(study, count=6))
    until_closed(node_of_all, study)
    note = rejection(study, [5, 6], tmp_path)
    dcmtk.storescu(node_of_all.port, note, calling="MODALITY")
    dcmtk.storescu(node_of_all.port, note, calling="TWIN")
    assert jobs(node_of_all, study) == [("1", 1, "QUEUED")]
    assert "REJECTION_NOT_TRUSTED" in codes_of(node_of_all, study)
    dcmtk.storescu(node_of_all.port, note, calling="PACS")
    assert "REJECTED" in codes_of(node_of_all, study)
    until_closed(node_of_all, study, times=2)
    node_of_all.wait_for(lambda _: len(jobs(node_of_all, study)) == 2, 20, "a new generation")
    assert jobs(node_of_all, study) == [("1", 1, "CANCELLED"), ("1", 2, "QUEUED")]
    attention = {
        row["code"] for row in node_of_all.status()["attention"] if row["study_uid"] == study
    }
    assert attention == {"REJECTED", "REJECTION_NOT_TRUSTED"}


@pytest.mark.peer("dcmtk")
def test_a_series_that_is_rejected_before_it_closes_is_not_analysed(
    node_of_all: Node, study: str, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    send(node_of_all, whole(study))
    dcmtk.storescu(node_of_all.port, rejection(study, [1, 2, 3, 4], tmp_path), calling="PACS")
    until_closed(node_of_all, study)
    why = {
        row["series_uid"]: row["choice"]
        for row in node_of_all.status()["series"]
        if row["study_uid"] == study
    }
    assert why[f"{study}.1"] == "all its instances were rejected"
    assert not [one for one in jobs(node_of_all, study) if one[2] == "QUEUED"]
