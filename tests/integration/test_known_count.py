"""A study closes by what a real archive says it has, while that is still being filled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import QUIET_SECONDS, claimed, close, come, finish, results_of, rows
from nodes import Node, Status
from peers import Dcmtk, Orthanc, free_port
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import CT, encoded, instance

from dicomnode.instances import file_prefix, read_header, split_file
from dicomnode.ledger import Ledger, associations, nodes
from dicomnode.ledger.schema import upgrade
from dicomnode.ledger.tables import answer, event, study
from dicomnode.services.common import Context
from dicomnode.services.counting import Asker
from dicomnode.settings import Settings
from dicomnode.spool import Spool

pytestmark = pytest.mark.peer("orthanc", "dcmtk")

STUDY = "1.2.826.0.1.3680043.8.498.7"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Six CT instances of two series of a study, one series after the other."""
    folder = tmp_path / "ct"
    folder.mkdir()
    paths = []
    for number in range(6):
        series = f"{STUDY}.{1 + number // 3}"
        uid = f"{series}.{number + 1}"
        dataset = instance(
            StudyInstanceUID=STUDY, SeriesInstanceUID=series, SOPInstanceUID=uid, StudyID="1"
        )
        paths.append(folder / f"{number:02d}.dcm")
        paths[-1].write_bytes(file_prefix(CT, uid, ExplicitVRLittleEndian) + encoded(dataset))
    return paths


def study_of(status: Status) -> dict[str, Any]:
    (found,) = status["studies"]
    return dict(found)


def closed_by(status: Status) -> str | None:
    return str(study_of(status)["closed_by"]) if status["studies"] else None


def test_an_archive_that_forwards_while_it_is_filled(
    node: Callable[..., Node],
    forwarding_orthanc: Callable[..., Orthanc],
    dcmtk: Dcmtk,
    files: list[Path],
) -> None:
    port = free_port()
    archive = forwarding_orthanc(port)
    over = {
        "node": {"port": port},
        "peers": {"ARCHIVE": {"query": True}},
        "assembly": {"count_apart_seconds": 1.0},
        "rules": [],
    }
    running = node("receive", "tick", archive=archive, quiet_seconds=60.0, overrides=over)
    for path in files:
        # Slower than the node looks, faster than it would believe that this was all.
        dcmtk.storescu(archive.port, path, called="ARCHIVE")
        time.sleep(0.25)
        assert closed_by(running.status()) in (None, "None")
    status = running.wait_for(lambda s: study_of(s)["state"] == "CLOSED", timeout=20)
    assert closed_by(status) == "KNOWN_COUNT"
    assert study_of(status)["instances"] == len(files)
    codes = [row["code"] for row in running.events(STUDY)]
    assert codes.count("STUDY_CLOSED") == 1


# The same question without a node's processes, by a clock that stands


@pytest.fixture
def beside(orthanc: Orthanc, tmp_path: Path, clock: Any) -> Iterator[Context]:
    """A ledger and the settings of a node that may ask an archive."""
    config = {
        "peers": {
            "ARCHIVE": {
                "ae_title": "ARCHIVE",
                "host": "127.0.0.1",
                "port": orthanc.port,
                "accept": True,
                "query": True,
            }
        }
    }
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", "node-1", clock)
    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, "DICOMNODE", "key-1")
    yield Context(
        settings=Settings.model_validate(config),
        spool=Spool(tmp_path / "spool", "tick"),
        ledger=ledger,
        patient_key=b"key",
        stop=threading.Event(),
    )
    ledger.close()


def forward(context: Context, paths: list[Path]) -> None:
    """Have the archive's copies come here, without the network between."""
    with context.ledger.transaction() as tx:
        association = associations.open_association(
            tx, calling_ae="ARCHIVE", called_ae="DICOMNODE", address="127.0.0.1"
        )
    for path in paths:
        data = path.read_bytes()
        syntax, start = split_file(data)
        with context.ledger.transaction() as tx:
            come(tx, read_header(data[start:], syntax, b"key"), association)


def test_what_the_archive_has_more_is_waited_for(
    beside: Context, orthanc: Orthanc, dcmtk: Dcmtk, files: list[Path], clock: Any
) -> None:
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    dcmtk.storescu(orthanc.port, *files, called="ARCHIVE")
    forward(beside, files[:-1])
    asker = Asker(beside, "ARCHIVE")
    assert asker.ask(beside) == 0  # something has just come
    clock.forward(5)
    assert asker.ask(beside) == 1
    clock.forward(200)
    assert close(beside.ledger) == 0
    forward(beside, files[-1:])
    clock.forward(5)
    assert asker.ask(beside) == 1
    assert close(beside.ledger) == 1
    assert [row.closed_by for row in rows(beside.ledger, study)] == ["KNOWN_COUNT"]
    assert [dict(row.counts) for row in rows(beside.ledger, answer)] == [
        {f"{STUDY}.1": 3, f"{STUDY}.2": 3}
    ]


def test_our_own_results_there_are_left_out(
    beside: Context, orthanc: Orthanc, dcmtk: Dcmtk, files: list[Path], clock: Any, tmp_path: Path
) -> None:
    orthanc.add_modality("NODE", "DICOMNODE", free_port())
    forward(beside, files[:-1])
    clock.forward(QUIET_SECONDS)
    assert close(beside.ledger) == 1
    done = claimed(beside.ledger)
    assert finish(beside.ledger, done)
    (ours, *_) = results_of(done)
    result = instance(
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=ours.series_uid,
        SOPInstanceUID=ours.sop_instance_uid,
        StudyID="1",
    )
    path = tmp_path / "result.dcm"
    prefix = file_prefix(CT, ours.sop_instance_uid, ExplicitVRLittleEndian)
    path.write_bytes(prefix + encoded(result))
    dcmtk.storescu(orthanc.port, *files, path, called="ARCHIVE")
    forward(beside, files[-1:])
    asker = Asker(beside, "ARCHIVE")
    for seconds in (5, 30):
        clock.forward(seconds)
        assert asker.ask(beside) == 1
    assert close(beside.ledger) == 1
    assert [row.closed_by for row in rows(beside.ledger, study)] == ["KNOWN_COUNT"]
    (told,) = rows(beside.ledger, answer)
    assert ours.series_uid in told.counts


def test_an_archive_that_is_away_delays_nothing_and_is_left_alone_for_a_while(
    beside: Context, orthanc: Orthanc, files: list[Path], clock: Any
) -> None:
    orthanc.stop()
    forward(beside, files)
    clock.forward(5)
    asker = Asker(beside, "ARCHIVE")
    assert asker.ask(beside) == asker.ask(beside) == 0
    clock.forward(QUIET_SECONDS - 5)
    assert close(beside.ledger) == 1
    assert [row.closed_by for row in rows(beside.ledger, study)] == ["QUIET"]
    told = [row for row in rows(beside.ledger, event) if row.code == "COUNT_UNKNOWN"]
    assert [(row.level, row.count) for row in told] == [("warning", 1)]
    assert "ARCHIVE: NO_CONNECTION" in told[0].detail
