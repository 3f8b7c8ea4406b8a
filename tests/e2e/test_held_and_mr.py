"""A whole node: results that contradict their headers wait for a person; MR goes to its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mr_series import mr_series, signal, write_mr_model
from nodes import Node, Status, are_delivered, job_states
from peers import Dcmtk, Orthanc
from tiny_nnunet import write_model

from dicomnode.demo.series import SeriesOptions, Subject, write_series
from inference.phantom import Body

PATCH = (32, 32, 32)
pytestmark = pytest.mark.peer("orthanc", "dcmtk")


def write(folder: Path, files: list[bytes]) -> Path:
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def prone_taken_for_supine() -> list[bytes]:
    """Return a body whose front and sides are exchanged against what the headers say."""
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = [-240, -190, -200]
    hu, _ = Body(1).render((96, 84, 132), affine)
    subject = Subject(patient_id="TURNED", accession="DEMO0002")
    return write_series(hu[::-1, ::-1], affine, SeriesOptions(seed=3, subject=subject))


def held_and_delivered(status: Status) -> bool:
    states = sorted(row["state"] for row in status["deliveries"])
    return states == ["DELIVERED"] * 6 + ["HELD"] * 3


def test_what_contradicts_its_headers_waits_and_mr_is_analysed_by_rule(
    node: Callable[..., Node], orthanc: Orthanc, dcmtk: Dcmtk, tmp_path: Path
) -> None:
    write_model(tmp_path / "models", model_id="tiny-ct", code_table="total_v1_104", patch=PATCH)
    write_mr_model(tmp_path / "models")
    research = tmp_path / "research"
    research.mkdir()
    rules = [
        {"name": kind, "when": {"modality": [kind]}, "model": model, "destinations": to}
        for kind, model, to in (
            ("CT", "tiny-ct", ["archive"]),
            ("MR", "tiny-mr", ["archive", "research"]),
        )
    ]
    more = {"research": {"folder": str(research), "profile": "research"}}
    folders = {"model_folders": [str(tmp_path / "models")]}
    new = node(
        "run", archive=orthanc, overrides={"rules": rules, "work": folders, "destinations": more}
    )
    dcmtk.storescu(new.port, write(tmp_path / "mr", mr_series(signal())))
    dcmtk.storescu(new.port, write(tmp_path / "ct", prone_taken_for_supine()))
    status = new.wait_for(held_and_delivered, timeout=120)
    assert job_states(status) == ["DONE", "DONE"]
    assert new.attention() == ["CONTENT_HELD"]
    by_model = {row["model_id"]: row for row in status["jobs"]}
    study = by_model["tiny-ct"]["study_uid"]
    assert any("the spine lies where" in text for text in by_model["tiny-ct"]["findings"])
    assert {event["code"] for event in new.events(study)} >= {"SPINE_NOT_AT_BACK", "CONTENT_HELD"}
    assert set(orthanc.results(by_model["tiny-mr"]["study_uid"])) == {"SEG", "OT", "SR"}
    (placed,) = research.glob("*/*/tiny-mr")
    names = {"labels.nii.gz", "statistics.json", "structures.csv"}
    assert {path.name for path in placed.iterdir()} == names

    assert new.command("release", study, "--reason", "looked at it").returncode == 0
    new.wait_for(are_delivered(9), timeout=60)
    assert set(orthanc.results(study)) == {"SEG", "OT", "SR"}
    assert new.attention() == []
