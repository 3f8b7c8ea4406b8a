"""Results that are superseded or withdrawn are withdrawn at the archive by a rejection note."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from analysis_kit import ConstantPredictor, model_card, plan
from ledger_kit import claimed, finish, rows
from nodes import Node, are_delivered
from others import dciodvfy_errors, dsrdump
from peers import Dcmtk, Orthanc, free_port
from pydicom.dataset import Dataset

from dicomnode import pipeline
from dicomnode.demo.series import write_series
from dicomnode.domain.records import StoredResult
from dicomnode.ledger import completing
from dicomnode.ledger.tables import event

pytestmark = pytest.mark.peer("orthanc", "dcmtk")
BOX = {5: (slice(2, 5), slice(3, 9), slice(2, 9)), 2: (slice(5, 8), slice(9, 12), slice(3, 9))}


def series() -> list[bytes]:
    hu = np.full((30, 30, 10), -1000, np.int16)
    hu[5:25, 5:25] = 40
    return write_series(hu, np.diag([-1.5, -1.5, 3.0, 1.0]))


def work(node: Node) -> None:
    """Do what the work role does, with a predictor that takes no time."""
    job = claimed(node.ledger)
    with node.ledger.transaction() as tx:
        predecessors = completing.predecessors(tx, job)
    given = plan(
        job_id=str(job.id),
        analysed_at=job.analysed_at,
        generation=job.generation,
        predecessors=predecessors,
    )
    paths = [node.spool / path for path in job.paths]
    analysis = pipeline.analyze(paths, given, predictor=ConstantPredictor(BOX), card=model_card())
    stored = []
    for position, item in enumerate(analysis.results):
        path = f"results/{job.id}/{item.sop_instance_uid}.dcm"
        (node.spool / path).parent.mkdir(parents=True, exist_ok=True)
        (node.spool / path).write_bytes(item.data)
        stored.append(
            StoredResult(
                kind=item.kind,
                position=position,
                sop_class_uid=item.sop_class_uid,
                sop_instance_uid=item.sop_instance_uid,
                series_uid=item.series_uid,
                transfer_syntax_uid=item.transfer_syntax_uid,
                path=path,
                digest=sha256(item.data).hexdigest(),
                size=len(item.data),
                summary=item.summary,
                refers_to=item.refers_to,
            )
        )
    assert finish(node.ledger, job, results=stored)


def notes_in(archive: Orthanc) -> list[Dataset]:
    return [dataset for dataset in archive.datasets() if dataset.Modality == "KO"]


def named(note: Dataset) -> set[str]:
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == note.StudyInstanceUID
    evidence = {
        reference.ReferencedSOPInstanceUID
        for one in study.ReferencedSeriesSequence
        for reference in one.ReferencedSOPSequence
    }
    tree = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in note.ContentSequence
        if item.ValueType in ("IMAGE", "COMPOSITE")
    }
    assert tree == evidence
    return evidence


def title(note: Dataset) -> str:
    return str(note.ConceptNameCodeSequence[0].CodeValue)


def withdraw(node: Node, study_uid: str, reason: str) -> tuple[int, str]:
    done = node.command("withdraw", study_uid, "--reason", reason)
    return done.returncode, done.stdout.strip()


def test_what_is_superseded_or_withdrawn_is_withdrawn_at_the_archive(
    node: Callable[..., Node],
    forwarding_orthanc: Callable[..., Orthanc],
    dcmtk: Dcmtk,
    tmp_path: Path,
) -> None:
    port = free_port()
    archive = forwarding_orthanc(port, where="tags['Modality'] ~= 'CT'")
    over = {
        "node": {"port": port},
        "peers": {"ARCHIVE": {"authority": True}},
        "destinations": {"archive": {"iocm": True}},
    }
    running = node("receive", "tick", "send", archive=archive, overrides=over)
    images = []
    for number, data in enumerate(series()):
        images.append(tmp_path / f"{number}.dcm")
        images[-1].write_bytes(data)

    dcmtk.storescu(running.port, *images[:-1])
    running.wait_for(lambda status: status["jobs"], 20, "a job")
    work(running)
    running.wait_for(are_delivered(2), 20, "the first results are delivered")
    first = set(archive.instances())
    assert len(first) == 2

    dcmtk.storescu(running.port, images[-1])  # the late slice
    running.wait_for(lambda status: len(status["jobs"]) == 2, 20, "a second job")
    assert notes_in(archive) == []
    work(running)
    running.wait_for(are_delivered(5), 20, "the second results and the note")
    (superseded,) = notes_in(archive)
    assert named(superseded) == first
    assert title(superseded) == "113001"
    second = set(archive.instances()) - first - {superseded.SOPInstanceUID}
    (report,) = [
        item
        for item in archive.datasets()
        if item.SOPInstanceUID in second and item.Modality == "SR"
    ]
    (old,) = (
        report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    )
    assert old.ReferencedSOPInstanceUID in first

    # No role runs while a person withdraws what is there now.
    running.stop()
    study = str(superseded.StudyInstanceUID)
    assert withdraw(running, study, "wrong side") == (0, "withdrawn")
    assert withdraw(running, study, "again") == (1, "nothing to do")
    running.start("receive", "tick", "send")
    running.wait_for(are_delivered(6), 20, "the second note")
    (withdrawn,) = [note for note in notes_in(archive) if title(note) == "113037"]
    assert named(withdrawn) == second

    # Everything came back to the node, the notes from a peer whose notes count, and began nothing.
    def own() -> int:
        return [row.code for row in rows(running.ledger, event)].count("OWN_RESULT")

    status = running.wait_for(lambda _: own() == 6, 20, "all results were echoed")
    assert [row["state"] for row in status["jobs"]] == ["DONE", "DONE"]
    codes = [row["code"] for row in running.events(study)]
    assert codes.count("RESULTS_WITHDRAWN") == 1
    assert codes.count("REJECTION_NOTE_QUEUED") == 2
    assert "REJECTED" not in codes
    assert "RESULT_REJECTED" not in codes
    assert set(running.attention()) == {"LATE_SLICE"}
    shown = json.loads(running.command("status", "--json").stdout)["deliveries"]
    assert {row["withdraw_reason"] for row in shown} == {"SUPERSEDED", "WITHDRAWN", None}
    assert "by " in next(row["detail"] for row in running.events(study) if "wrong" in row["detail"])
    for note in notes_in(archive):
        note.save_as(tmp_path / "note.dcm")
        assert dciodvfy_errors(tmp_path / "note.dcm") == []
        assert "Rejected for" in dsrdump(tmp_path / "note.dcm")
        assert note.PatientID == report.PatientID
        assert str(note.PatientName) == str(report.PatientName)
