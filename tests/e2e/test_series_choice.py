"""A study as a scanner sends it, by DCMTK: of all its series the right one is analysed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from nodes import Node, job_states
from peers import Dcmtk
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicomnode.demo.series import SeriesOptions, write_series
from inference.phantom import Body

pytestmark = [
    pytest.mark.peer("dcmtk"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
]

AXIAL = np.array([[-3.2, 0, 0, 204.8], [0, -3.2, 0, 244.8], [0, 0, 6, -240], [0, 0, 0, 1.0]])
CORONAL = np.array([[-3.2, 0, 0, 204.8], [0, 0, 8, -160], [0, -3.2, 0, 200], [0, 0, 0, 1.0]])


def thick(affine: np.ndarray, times: int) -> np.ndarray:
    return affine @ np.diag([1.0, 1.0, times, 1.0])


def coded(value: str, scheme: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "meaning"
    return item


def mapped(unit: str) -> Dataset:
    item = Dataset()
    item.MeasurementUnitsCodeSequence = [coded(unit, "UCUM")]
    return item


def put(folder: Path, files: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, data in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(data)


def borrowed(path: Path, like: Dataset, number: int) -> Dataset:
    """Return a real file as part of the made study: its identity and study, all else its own."""
    dataset = pydicom.dcmread(path)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber"):
        setattr(dataset, keyword, like[keyword].value)
    dataset.IssuerOfPatientID = ""
    dataset.StudyInstanceUID = like.StudyInstanceUID
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesNumber = number
    return dataset


@pytest.fixture
def study(tmp_path: Path, test_data: Path) -> Path:
    """A folder of a study with everything that a scanner and its workstation make of a scan."""
    body, _ = Body(5).render((128, 128, 80), AXIAL)
    plain: np.ndarray = np.full((128, 128, 20), -1000, np.int16)
    folder = tmp_path / "study"

    def series(number: int, what: str, hu: np.ndarray, affine: np.ndarray, **extra: Any) -> None:
        options = SeriesOptions(seed=5, series_number=number, series_description=what, extra=extra)
        put(folder / str(number), write_series(hu, affine, options))

    kernel = {"ConvolutionKernel": ["Br40d", "3"]}
    series(3, "Thorax 12.0 Br40", body[:, :, ::2], thick(AXIAL, 2), **kernel)
    series(4, "Thorax 6.0 Bl57", body, AXIAL, ConvolutionKernel=["Bl57d", "3"])
    series(5, "Thorax 6.0 Br40", body, AXIAL, **kernel)
    mpr = ["DERIVED", "SECONDARY", "MPR"]
    series(6, "Thorax cor 8.0", plain, CORONAL, ImageType=mpr, **kernel)
    slab = thick(AXIAL, 4)
    mip = ["DERIVED", "SECONDARY", "AXIAL", "MIP"]
    series(7, "Thorax 8.0", plain, slab, ImageType=mip, **kernel)
    multi = {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "MAT_SPECIFIC"], "RescaleType": "MGML"}
    series(8, "Thorax 24.0", plain, slab, **multi)
    # Known by a coded unit, by a derivation code, and by a word alone.
    series(9, "Thorax 24.0", plain, slab, RealWorldValueMappingSequence=[mapped("mg/cm3")])
    series(10, "Thorax 24.0", plain, slab, DerivationCodeSequence=[coded("113062", "DCM")])
    series(11, "Thorax VNC 24.0", plain, slab)
    series(12, "Thorax Mono+ 40 keV", plain, slab)
    like = pydicom.dcmread(folder / "5" / "0.dcm")
    for number, name in ((1, "philips-localizer.dcm"), (99, "philips-dose-screen.dcm")):
        (folder / f"{number}").mkdir()
        borrowed(test_data / "odd" / name, like, number).save_as(folder / f"{number}" / "0.dcm")
    return folder


EXPECTED = {
    1: "NOT_A_VOLUME",
    3: "BETTER_CHOSEN",
    4: "BETTER_CHOSEN",
    5: "CHOSEN",
    6: "NOT_AXIAL",
    7: "DERIVED_MAP",
    8: "DERIVED_MAP",
    9: "NOT_HU",
    10: "DERIVED_MAP",
    11: "DERIVED_MAP",
    12: "NO_RULE",
    99: "NOT_CT",
}


def dicomnode(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dicomnode", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_of_a_whole_study_exactly_the_right_series_is_analysed(
    node: Callable[..., Node], dcmtk: Dcmtk, study: Path
) -> None:
    running = node("run", quiet_seconds=2.0)
    dcmtk.storescu(running.port, study)
    status = running.wait_for(lambda facts: job_states(facts) == ["DONE"], timeout=200)

    assert {row["series_number"]: row["choice_code"] for row in status["series"]} == EXPECTED
    chosen = next(row for row in status["series"] if row["choice_code"] == "CHOSEN")
    (job,) = status["jobs"]
    assert job["series_uid"] == chosen["series_uid"]
    assert chosen["summary"]["kernel"] == "Br40d/3"
    why = {row["series_number"]: row["choice"] for row in status["series"]}
    assert "the best of 3 that fit" in why[5]
    assert "is thinner (6 mm, this one 12 mm)" in why[3]
    assert "softer kernel" in why[4]
    assert "Rescale Type is MGML" in why[8]
    assert "Real World Values are in mg/cm3" in why[9]
    assert "pixel by pixel subtraction" in why[10]
    assert running.attention() == []

    uid = status["studies"][0]["study_uid"]
    told = json.loads(dicomnode("status", running.config, "--study", uid, "--json"))
    assert {row["series_number"]: row["choice_code"] for row in told["series"]} == EXPECTED
    shown = dicomnode("status", running.config, "--study", uid)
    for words in ("CHOSEN", "BETTER_CHOSEN", "axial, Br40d/3, 6 mm", "Image Type has MIP"):
        assert words in shown, shown
    # The same rules say the same of the files, before anything is sent.
    (found,) = json.loads(dicomnode("rules", study, "-c", running.config, "--json"))
    assert {row["series_number"]: row["choice_code"] for row in found["series"]} == EXPECTED
