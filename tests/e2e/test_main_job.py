"""The main job with real peers: DCMTK's storescu is the modality, Orthanc the archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nodes import Node, are_delivered, job_states
from others import dciodvfy_errors, dcmqi_labels, dsrdump, in_segment_numbers
from peers import Dcmtk, Orthanc
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.imaging import read_scan
from inference.phantom import Body

pytestmark = pytest.mark.peer("orthanc", "dcmtk")


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    """A phantom series of 200 slices of 512 x 512."""
    affine = np.diag([-0.85, -0.85, 3.0, 1.0])
    affine[:3, 3] = [217.0, 257.0, -250.0]
    hu, _ = Body(7).render((512, 512, 200), affine)
    folder = tmp_path / "phantom"
    folder.mkdir()
    for number, data in enumerate(write_series(hu, affine, SeriesOptions(seed=7))):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


def test_series_go_in_and_results_come_back(
    node: Callable[..., Node],
    orthanc: Orthanc,
    dcmtk: Dcmtk,
    test_data: Path,
    phantom: Path,
    tmp_path: Path,
) -> None:
    real = test_data / "crlm-ct-1004/image"
    running = node("run", archive=orthanc)
    for folder in (real, phantom):
        # The archive has the study, as it has in a hospital: the results belong into it.
        dcmtk.storescu(orthanc.port, folder, called="ARCHIVE")
        dcmtk.storescu(running.port, folder)
    status = running.wait_for(are_delivered(6), timeout=240)

    assert job_states(status) == ["DONE", "DONE"]
    assert status["counts"]["instances"] == 241
    assert running.attention() == []
    for name, folder in (("real", real), ("phantom", phantom)):
        scan = read_scan([path.read_bytes() for path in folder.iterdir()])
        study = str(scan.header.StudyInstanceUID)
        place = tmp_path / f"{name}-results"
        results = orthanc.results(study)
        assert set(results) == {"SEG", "OT", "SR"}
        check_results(results, scan.header, place, all_frames=folder == real)
        job = next(row for row in status["jobs"] if row["study_uid"] == study)
        with np.load(running.spool / "results" / str(job["id"]) / "labels.npz") as stored:
            labels = stored["labels"]
        assert len(np.unique(labels)) > 10
        affine = scan.affine[:, [2, 1, 0, 3]]  # of [column, row, slice], as the reader's
        read = dcmqi_labels(place / "SEG.dcm", place / "dcmqi", labels.shape[::-1], affine)
        expected = in_segment_numbers(labels, results["SEG"])
        assert (read.transpose(2, 1, 0) == expected).all()

    # An archive that routes everything back gets Success, and nothing begins again.
    orthanc.add_modality("NODE", running.ae_title, running.port)
    orthanc.store_scu("NODE", list(orthanc.instances().values()))
    again = running.status()
    assert again["counts"] == status["counts"]
    assert running.attention() == []


def check_results(
    results: dict[str, pydicom.Dataset], source: pydicom.Dataset, folder: Path, *, all_frames: bool
) -> None:
    folder.mkdir()
    for kind, dataset in results.items():
        path = folder / f"{kind}.dcm"
        if kind == "SEG":  # it came deflated, which dciodvfy cannot read
            assert dataset.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(path)
        assert dciodvfy_errors(path, all_frames=all_frames and kind == "SEG") == []
        assert "not for diagnosis" in dataset.SeriesDescription
        assert "DEMO" in dataset.SeriesDescription
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber"):
            assert dataset.get(keyword, "") == source.get(keyword, "")
    text = dsrdump(folder / "SR.dcm")
    assert "Imaging Measurement Report" in text
    assert "UNVERIFIED" in text.upper()
    groups = text.count('125007,DCM,"Measurement Group"')
    assert groups == len(results["SEG"].SegmentSequence)
    assert text.count('112031,DCM,"Attenuation Coefficient"') >= groups
    assert text.count('118565006,SCT,"Volume"') > 0
