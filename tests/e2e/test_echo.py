"""An archive that sends everything it gets to the node, the node's own results as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import claimed, finish, results_of, rows
from nodes import Node, Status, are_delivered
from peers import Dcmtk, Orthanc, free_port
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import CT, encoded, instance

from dicomnode.domain.identifiers import SOPClassUID
from dicomnode.domain.records import Job, StoredResult
from dicomnode.instances import file_prefix
from dicomnode.ledger.tables import event

pytestmark = pytest.mark.peer("orthanc", "dcmtk")

STUDY = "1.2.826.0.1.3680043.8.498.8"


def file_of(series: str, uid: str, z_mm: float = 0.0) -> bytes:
    dataset = instance(
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=series,
        SOPInstanceUID=uid,
        StudyID="1",
        ImagePositionPatient=[0, 0, z_mm],
    )
    return file_prefix(CT, uid, ExplicitVRLittleEndian) + encoded(dataset)


def results_in(node: Node, job: Job) -> list[StoredResult]:
    """Put two result instances into the spool, as a worker does."""
    made = []
    for one in results_of(job):
        data = file_of(one.series_uid, one.sop_instance_uid)
        path = node.spool / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        changes: dict[str, Any] = {"digest": sha256(data).hexdigest(), "size": len(data)}
        made.append(replace(one, sop_class_uid=SOPClassUID(CT), **changes))
    return made


def own_results(node: Node) -> int:
    return [row.code for row in rows(node.ledger, event)].count("OWN_RESULT")


def test_what_an_archive_echoes_begins_nothing(
    node: Callable[..., Node],
    forwarding_orthanc: Callable[..., Orthanc],
    dcmtk: Dcmtk,
    tmp_path: Path,
) -> None:
    port = free_port()
    archive = forwarding_orthanc(port)
    over = {
        "node": {"port": port},
        "peers": {"ARCHIVE": {"query": True}},
        "assembly": {"count_apart_seconds": 1.0},
    }
    running = node("receive", "tick", "send", archive=archive, quiet_seconds=60.0, overrides=over)
    images = []
    for number in range(4):
        images.append(tmp_path / f"{number}.dcm")
        images[-1].write_bytes(file_of(f"{STUDY}.1", f"{STUDY}.1.{number}", 10.0 * number))
    dcmtk.storescu(archive.port, *images, called="ARCHIVE")
    # The archive's count closes the study, long before its quiet time.
    running.wait_for(lambda status: status["jobs"], 20, "a job")
    leased = claimed(running.ledger)
    assert finish(running.ledger, leased, results=results_in(running, leased))

    def came_back(status: Status) -> bool:
        return are_delivered(2)(status) and own_results(running) == 2

    status = running.wait_for(came_back, 30, "the results are delivered and sent back")
    (study,) = status["studies"]
    assert (study["state"], study["closed_by"]) == ("CLOSED", "KNOWN_COUNT")
    assert study["instances"] == len(images)
    assert status["counts"]["instances"] == len(images)
    assert [row["state"] for row in status["jobs"]] == ["DONE"]
    codes = [row["code"] for row in running.events(STUDY)]
    assert codes.count("STUDY_CLOSED") == 1
    assert running.attention() == []
