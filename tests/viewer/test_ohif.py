"""A real browser opens the results in OHIF, and the overlay lies where the label map says.

`make test-viewer` runs it: OHIF's ready build on loopback, Orthanc's DICOMweb behind it, Debian's
chromium without a display. What the viewer holds is compared voxel for voxel, and what it draws is
looked at at every voxel's place in the patient, which is computed here from the source's headers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import irregular_series
import marker_series
import numpy as np
import pydicom
import pytest
from analysis_kit import MarkerPredictor, model_card, plan
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from ohif_page import Ohif, Overlay, start_chromium
from peers import DICOM_WEB_PLUGIN, Orthanc
from playwright.sync_api import Browser, sync_playwright
from viewer_site import ViewerSite

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import DEFAULT_OBJECTS, Analysis, ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.pipeline import analyze, describe
from dicomnode.results import encode, prepare
from dicomnode.results.codes import load_codes
from dicomnode.scan import LabelMap
from inference.measuring import measure
from inference.phantom import Body

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DICOMNODE_VIEWER") != "1", reason="make test-viewer runs the browser"
    ),
    pytest.mark.peer("orthanc", "orthanc-dicomweb", "chromium", "ohif"),
]
STRAIGHT = ("supine", "prone", "feet first", "33 degrees oblique")
IRREGULAR = ("tilted by 18 degrees", "tilted and uneven")
KINDS = ("seg", "labelmap")
CARD = model_card((1.5, 1.5, 1.5))
PICTURES = Path(os.environ.get("DICOMNODE_PICTURES") or tempfile.mkdtemp())
"""Where pictures go; docs/pictures, to renew those in the documents."""
PATIENCE_SECONDS = 15.0
"""It draws when it has time, and what lies there wrong never becomes right."""
GREY, COLOURED, ALIKE = 3.0, 8.0, 0.95
"""Distance of a colour from grey, of 255, where there is none and where there is; the cosine of two
tints that are one."""
TABLE = load_codes("total_v1_104")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = start_chromium(playwright)
        yield started
        started.close()


@pytest.fixture
def archive(start_orthanc: object) -> Orthanc:
    options = {
        "Plugins": [str(DICOM_WEB_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    return start_orthanc(options=options)  # type: ignore[operator]


@pytest.fixture
def ohif(browser: Browser, archive: Orthanc) -> Iterator[Ohif]:
    with ViewerSite(archive.http_port) as site:
        viewer = Ohif(browser, site.url)
        yield viewer
        viewer.page.close()
    assert viewer.errors == []


def store(archive: Orthanc, *instances: bytes) -> None:
    for data in instances:
        archive.post("/instances", data)


def analysed(name: str) -> tuple[list[bytes], Analysis]:
    kit = irregular_series if name in IRREGULAR else marker_series
    if name in IRREGULAR:
        tilt, kept, down = irregular_series.CASES[name]
        files = irregular_series.irregular_series(tilt, kept, down=down)
    else:
        files = marker_series.marker_series(name)
    predictor = MarkerPredictor({m.label: m.centre for m in kit.MARKERS}, 1000, 1.5)
    return files, analyze(files, plan(objects=KINDS), predictor=predictor, card=CARD)


def label_slices(analysis: Analysis) -> dict[str, NDArray[np.uint8]]:
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        return dict(zip(arrays["sop_instance_uids"].tolist(), arrays["labels"], strict=True))


def label_numbers(seg: bytes) -> dict[int, int]:
    """Return the model's label by Segment Number."""
    return {
        int(item.SegmentNumber): int(item.SegmentDescription.split("label ")[1].split(":")[0])
        for item in pydicom.dcmread(BytesIO(seg)).SegmentSequence
        if "label " in item.get("SegmentDescription", "")
    }


def world_of(header: pydicom.Dataset) -> NDArray[np.float64]:
    """LPS+ mm [row, column, 3] of an image's voxels (PS3.3 C.7.6.2.1.1)."""
    cosines = np.array(header.ImageOrientationPatient, float)
    rows, columns = np.indices((header.Rows, header.Columns))
    return np.asarray(
        np.array(header.ImagePositionPatient, float)
        + columns[..., None] * cosines[:3] * float(header.PixelSpacing[1])
        + rows[..., None] * cosines[3:] * float(header.PixelSpacing[0])
    )


def interior(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where all eight neighbours bear the same label: no drawn edge can reach the centre."""
    padded = np.pad(labels, 1, mode="edge")
    rows, columns = labels.shape
    around = [padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
    return np.logical_and.reduce([part == labels for part in around])


def assert_drawn_where_it_is(
    viewer: Ohif,
    overlay: Overlay,
    header: pydicom.Dataset,
    numbers: NDArray[np.uint8],
) -> None:
    """Compare the rendered colours with the Segment Numbers [row, column] of one image."""
    world = world_of(header).reshape(-1, 3)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        viewer.show_slice(header.SOPInstanceUID)  # it scrolls by itself when a SEG is opened
        drawn, places = viewer.pixels_at(world)
        faults = faults_of(drawn, numbers, viewer, overlay)
        if not faults or time.monotonic() > deadline:
            break
    assert faults == []
    assert_sides(viewer, world, places)


def faults_of(
    drawn: NDArray[np.float64], numbers: NDArray[np.uint8], viewer: Ohif, overlay: Overlay
) -> list[str]:
    """Say what of the colours drawn at every voxel (NaN: out of sight) is not as it should be."""
    seen = ~np.isnan(drawn).any(axis=1) & interior(numbers).ravel()
    flat = numbers.ravel()
    present = [int(number) for number in np.unique(flat[seen]) if number]
    assert present, "a segment is in sight"
    tint = drawn - drawn.mean(axis=1, keepdims=True)
    strength = np.linalg.norm(tint, axis=1)
    faults = ["colour outside"] if (strength[seen & (flat == 0)] > GREY).any() else []
    for number, colour in zip(present, viewer.colours(overlay, present), strict=True):
        inside = seen & (flat == number)
        wanted = colour - colour.mean()
        likeness = tint[inside] @ wanted / np.linalg.norm(wanted) / (strength[inside] + 1e-9)
        if (strength[inside] < COLOURED).any() or (likeness < ALIKE).any():
            faults.append(f"segment {number} is not drawn everywhere, or in another colour")
    return faults


def assert_sides(viewer: Ohif, world: NDArray[np.float64], places: NDArray[np.float64]) -> None:
    """The letters at the viewport's sides say where its voxels lie in the patient."""
    letters = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "H": (2, 1), "F": (2, -1)}
    for side, axis in (("left", 0), ("top", 1)):
        mark = viewer.marks()[side]
        assert mark, "a side has its letter"
        patient_axis, sign = letters[mark[0]]
        # Smaller x is left, smaller y is up: towards that side the letter's coordinate grows.
        slope = np.polyfit(places[:, axis], world[:, patient_axis], 1)[0]
        assert slope * sign < 0, f"{mark} stands {side}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*STRAIGHT, *IRREGULAR])
def test_the_overlay_lies_where_the_label_map_says(
    name: str, kind: str, archive: Orthanc, ohif: Ohif
) -> None:
    files, analysis = analysed(name)
    (seg,) = (item for item in analysis.results if item.kind == kind)
    store(archive, *files, seg.data)
    ohif.open_study(analysis.study_uid, series=2)

    overlay = ohif.load_segmentation("AI not for diagnosis")

    labels, of_number = label_slices(analysis), label_numbers(seg.data)
    table = np.zeros(256, np.uint8)
    table[list(of_number)] = list(of_number.values())
    assert set(overlay.numbers) == set(labels)
    assert [uid for uid in labels if (table[overlay.numbers[uid]] != labels[uid]).any()] == []
    for number, label in of_number.items():
        assert overlay.segments[number] == TABLE[label].segment_label
    if kind == "seg":  # of a LABELMAP, OHIF 3.13.2 gives segments the colours of others
        lab = [TABLE[label].cielab for label in of_number.values()]
        ours = [CIELabColor.from_dicom_value(value).to_rgb() for value in lab]
        assert np.abs(ohif.colours(overlay, list(of_number)) - ours).max() <= 2
    headers = {
        str(item.SOPInstanceUID): item
        for item in (pydicom.dcmread(BytesIO(data), stop_before_pixels=True) for data in files)
    }
    for label in of_number.values():
        largest = max(labels, key=lambda uid: int((labels[uid] == label).sum()))
        assert_drawn_where_it_is(ohif, overlay, headers[largest], overlay.numbers[largest])


# What a reader sees of a body


@pytest.fixture(scope="module")
def body() -> tuple[list[bytes], tuple[ResultInstance, ...]]:
    """A phantom's series and the results of its own labels."""
    shape, spacing = (256, 256, 110), (1.6, 1.6, 5.0)
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    hu, _ = Body(3).render(shape, affine)
    files = write_series(hu, affine, SeriesOptions(seed=90, series_description="Abdomen 5.0 B"))
    scan = read_scan(files)
    ras = np.diag([-1.0, -1, 1, 1]) @ scan.affine
    labels = np.ascontiguousarray(Body(3).render(scan.volume.shape, ras)[1])
    found = LabelMap(labels=labels, source_digest=scan.digest)
    numbers = measure(scan.volume, labels, scan.voxel_volumes_mm3, CARD.structures, scan.valid)
    made = encode(prepare(scan), found, describe(CARD), numbers, plan(objects=DEFAULT_OBJECTS))
    return files, made


def test_a_body_is_shown_with_its_organs(
    archive: Orthanc, ohif: Ohif, body: tuple[list[bytes], tuple[ResultInstance, ...]]
) -> None:
    files, results = body
    seg = next(item for item in results if item.kind == "seg")
    store(archive, *files, seg.data)
    study_uid = str(pydicom.dcmread(BytesIO(seg.data)).StudyInstanceUID)
    ohif.open_study(study_uid, series=2)
    overlay = ohif.load_segmentation("SEG of S2")

    titles = [TABLE[label].segment_label for label in label_numbers(seg.data).values()]
    assert sorted(overlay.segments.values()) == sorted(titles)
    assert len(titles) > 80
    richest = max(overlay.numbers, key=lambda uid: len(np.unique(overlay.numbers[uid])))
    headers = (pydicom.dcmread(BytesIO(data), stop_before_pixels=True) for data in files)
    header = next(item for item in headers if item.SOPInstanceUID == richest)
    assert_drawn_where_it_is(ohif, overlay, header, overlay.numbers[richest])
    ohif.open_panel()
    ohif.show_slice(richest)
    ohif.picture(PICTURES / "ohif-seg.png")


def test_the_preview_and_the_report_open(
    archive: Orthanc, ohif: Ohif, body: tuple[list[bytes], tuple[ResultInstance, ...]]
) -> None:
    files, results = body
    store(archive, *files, *(item.data for item in results))
    preview = pydicom.dcmread(BytesIO(next(r.data for r in results if r.kind == "preview")))
    ohif.open_study(str(preview.StudyInstanceUID), series=4)

    ohif.thumbnail("PREVIEW of S2").dblclick()
    ohif.wait_until_shown(preview.SOPInstanceUID)

    assert np.array_equal(ohif.held_pixels(), preview.pixel_array)
    ohif.picture(PICTURES / "ohif-preview.png")
    # It reads the report, but shows numbers nowhere that have no points in an image: the viewport
    # stays empty.
    ohif.thumbnail("SR of S2").dblclick()
    ohif.wait_until_modality("SR")
    seg = next(item for item in results if item.kind == "seg")
    read = ohif.measurements()
    assert len(read) == len(label_numbers(seg.data))
    for title, labels in read.items():
        if any("volume is not given" in text for text in labels):
            assert "Volume" not in labels, title
        else:
            assert labels["Volume"].endswith(" mL"), title
