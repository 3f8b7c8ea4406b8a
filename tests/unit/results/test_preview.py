"""The preview shows the right side, in true proportions, and says what it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from analysis_kit import plan
from numpy.typing import NDArray
from others import dciodvfy_errors
from PIL import Image
from pydicom.dataset import Dataset

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import Model, encode, prepare
from dicomnode.results.codes import load_codes
from dicomnode.results.preview.capture import shows_face
from dicomnode.results.preview.page import DISCLAIMER, HEIGHT, MARKS, WIDTH, Content, draw_page
from dicomnode.results.preview.planes import best_places, overlay
from dicomnode.results.preview.solid import render
from dicomnode.results.preview.space import Space
from dicomnode.results.preview.volumes import choose_rows, counted
from dicomnode.results.systems import system_of
from dicomnode.scan import RAS_FROM_LPS, LabelMap, Scan

LEFT, RIGHT, FRONT, BACK, HEAD, FEET = 1, 2, 3, 4, 5, 6
# RAS+ mm: a marker at each end of the patient.
MARKERS = {
    LEFT: (-40, 0, 0),
    RIGHT: (40, 0, 0),
    FRONT: (0, 30, 0),
    BACK: (0, -30, 0),
    HEAD: (0, 0, 50),
    FEET: (0, 0, -50),
}
RADIUS_MM = 8.0
MODEL = Model(
    id="total-v1",
    title="Model of the tests",
    version="1.5",
    weights_digest="ab" * 32,
    demonstration=False,
    code_table="total_v1_104",
    structures={label: codes.name for label, codes in load_codes("total_v1_104").items()},
)
PALETTE = np.zeros((256, 3))
PALETTE[1:7] = np.eye(3).repeat(2, axis=0) * (255, 200, 150)
PALETTE[2] = (200, 0, 200)
PALETTE[4] = (0, 120, 250)
PALETTE[6] = (200, 200, 0)


@dataclass(frozen=True, kw_only=True)
class Number:
    label: int
    volume_ml: float = 12.3456
    mean: float | None = 61.26
    sd: float | None = 4.04
    touches_border: bool = False


def affine_of(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> NDArray[np.float64]:
    """An array whose axes run along the patient's in this order and direction, about its middle."""
    spacing = (2.0, 2.5, 3.0)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign, step) in enumerate(zip(axes, signs, spacing, strict=True)):
        affine[axis, index] = sign * step
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


SHAPE = (70, 60, 50)


def labelled(scan: Scan) -> NDArray[np.uint8]:
    """Balls of labels where the markers are, by the position of each slice."""
    _, row_mm, column_mm = scan.spacing_mm
    rows, columns = np.indices(scan.volume.shape[1:])
    along_row, along_column = scan.affine[:3, 2] / column_mm, scan.affine[:3, 1] / row_mm
    labels = np.zeros(scan.volume.shape, np.uint8)
    for index, position in enumerate(scan.positions):
        points = (
            position
            + rows[..., None] * row_mm * along_column
            + columns[..., None] * column_mm * along_row
        )
        for label, centre in MARKERS.items():
            away = points - RAS_FROM_LPS[:3, :3] @ np.array(centre, float)
            labels[index][np.linalg.norm(away, axis=-1) < RADIUS_MM] = label
    return labels


def scan_of(affine: NDArray[np.float64], body: int = -1000, **options: Any) -> Scan:
    hu = np.full(SHAPE, -1000, np.int16)
    hu[4:-4, 4:-4, 4:-4] = body
    return read_scan(write_series(hu, affine, SeriesOptions(**options)))


def centre_of(picture: NDArray[np.uint8], label: int) -> NDArray[np.float64] | None:
    """Row and column of a label's colour, from the middle of the picture; None where it is not."""
    colour = PALETTE[label]
    strong = picture.astype(float) @ colour
    length = np.linalg.norm(picture, axis=-1) * np.linalg.norm(colour)
    found = np.argwhere((strong > 0.995 * length) & (picture.max(axis=-1) > 40))
    if len(found) < 20:
        return None
    return np.asarray(found.mean(axis=0) - (np.array(picture.shape[:2]) - 1) / 2)


ORIENTATIONS = [
    ((0, 1, 2), (-1, -1, 1)),  # as scanners do
    ((0, 1, 2), (1, 1, -1)),
    ((0, 2, 1), (-1, -1, 1)),
    ((1, 2, 0), (1, 1, 1)),
    ((2, 0, 1), (-1, 1, -1)),
]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_every_side_is_where_its_mark_says(
    axes: tuple[int, int, int], signs: tuple[int, int, int]
) -> None:
    check_sides(scan_of(affine_of(axes, signs)))


def test_so_on_tilted_uneven_and_oblique_stacks() -> None:
    straight = affine_of((0, 1, 2), (-1, -1, 1))
    check_sides(scan_of(straight, tilt_degrees=15.0))
    check_sides(scan_of(straight, jitter_mm=0.4))
    angle = np.radians(25)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    check_sides(scan_of(turn @ straight))


def check_sides(scan: Scan) -> None:
    labels = labelled(scan)
    assert set(np.unique(labels)) == {0, *MARKERS}
    space = Space(scan)
    box = space.labelled(labels)
    assert box is not None
    grid = space.grid(labels, box)
    wanted = np.ones(256, np.bool_)

    front = render(grid.labels, wanted, PALETTE, "front")
    sides(front, {LEFT: (0, 40), RIGHT: (0, -40), HEAD: (-50, 0), FEET: (50, 0)}, grid.step_mm)
    left = render(grid.labels, wanted, PALETTE, "left")
    sides(left, {FRONT: (0, -30), BACK: (0, 30), HEAD: (-50, 0), FEET: (50, 0)}, grid.step_mm)
    middle = np.zeros(3)
    for plane, expected in {
        "coronal": {LEFT: (0, 40), RIGHT: (0, -40), HEAD: (-50, 0), FEET: (50, 0)},
        "sagittal": {FRONT: (0, -30), BACK: (0, 30), HEAD: (-50, 0), FEET: (50, 0)},
        "axial": {LEFT: (0, 40), RIGHT: (0, -40), FRONT: (-30, 0), BACK: (30, 0)},
    }.items():
        picture = overlay(space, labels, PALETTE, plane, grid.box, middle, 2.0)  # type: ignore[arg-type]
        sides(picture, expected, 0.5)


def sides(
    picture: NDArray[np.uint8], expected: dict[int, tuple[int, int]], pixel_mm: float
) -> None:
    """Each marker lies so many mm down and to the right of the middle: side and proportion."""
    for label, place in expected.items():
        found = centre_of(picture, label)
        assert found is not None, label
        assert found * pixel_mm == pytest.approx(place, abs=4.5), label


def test_the_marks_stand_where_the_sides_are() -> None:
    assert MARKS == {
        "front": ("R", "L", "H", "F"),
        "left": ("A", "P", "H", "F"),
        "coronal": ("R", "L", "H", "F"),
        "sagittal": ("A", "P", "H", "F"),
        "axial": ("R", "L", "A", "P"),
    }, "at the left, right, upper and lower edge"


def test_planes_go_through_most_structures() -> None:
    scan = scan_of(affine_of((0, 1, 2), (-1, -1, 1)))
    labels = labelled(scan)
    space = Space(scan)
    box = space.labelled(labels)
    assert box is not None
    place = best_places(space.grid(labels, box))
    assert np.abs(place).max() < RADIUS_MM, "four markers each lie about the middle planes"


# The page


def content(**changes: Any) -> Content:
    scan = scan_of(affine_of((0, 1, 2), (-1, -1, 1)), 40)
    values: dict[str, Any] = {
        "scan": scan,
        "labels": labelled(scan),
        "model": MODEL,
        "measurements": tuple(Number(label=label) for label in MARKERS),
        "findings": (),
        "severities": {},
        "series_number": 2,
        "slices": (50, 50),
    }
    return Content(**{**values, **changes})


def test_the_page_holds_any_text_within_its_edges() -> None:
    labels = tuple(Number(label=label, touches_border=bool(label % 2)) for label in range(1, 105))
    page = draw_page(
        content(
            measurements=labels,
            findings=tuple(f"Finding {n} {'with many words ' * 12}" for n in range(30)),
            model=replace(MODEL, demonstration=True),
            slices=(50, 60),
        )
    )
    assert page.shape == (HEIGHT, WIDTH, 3)
    assert not page[-6:, 1160:].any(), "text runs out of the page"
    assert not page[:, -10:].any() or not page[100:, -10:].any()
    assert page[700:, 1160:].any(), "the findings are there"


def test_a_page_of_mr_shows_its_signal() -> None:
    scan = content().scan
    bright = replace(scan, volume=(scan.volume + 1000).astype(np.int16) // 3, modality="MR")
    page = draw_page(content(scan=bright))
    grey = page[700:, :1100].reshape(-1, 3)
    lit = grey[(grey.max(axis=1) - grey.min(axis=1) < 3) & (grey.max(axis=1) > 90)]
    assert len(lit) > 10_000


def test_a_page_of_nothing_says_so() -> None:
    empty = content(labels=np.zeros((50, 60, 70), np.uint8), measurements=())
    page = draw_page(empty)
    assert page[100:600, :1150].any(), "it says that nothing was found"
    assert page[700:, :1150].any(), "and shows the patient all the same"


def test_the_table_is_of_what_a_radiologist_looks_for() -> None:
    names = dict(MODEL.structures)
    titles = {label: codes.segment_label for label, codes in load_codes("total_v1_104").items()}
    wanted = {
        "liver": (1500.0, 50.0),
        "lung_upper_lobe_left": (1000.0, -800.0),
        "lung_lower_lobe_left": (500.0, -740.0),
        "lung_upper_lobe_right": (900.0, -800.0),
        "colon": (700.0, None),
        "rib_left_4": (9.0, 300.0),
        "vertebrae_L1": (40.0, 200.0),
        "vertebrae_L2": (40.0, 200.0),
        "vertebrae_L4": (40.0, 200.0),
        "gluteus_maximus_left": (800.0, 40.0),
    }
    numbers = [
        Number(
            label=label,
            volume_ml=wanted[name][0],
            mean=wanted[name][1],
            touches_border=name == "lung_upper_lobe_left",
        )
        for label, name in names.items()
        if name in wanted
    ]
    rows = choose_rows(names, titles, numbers, 20)
    assert [row.title for row in rows] == [
        "Liver",
        "Lung right (1 of 3 parts)",
        "Lung left",
        "Left gluteus maximus",
        "Colon",
    ]
    lung = rows[2]
    assert (lung.volume_ml, lung.mean, lung.cut) == (1500.0, -780.0, True)
    assert rows[-1].mean is None
    assert not rows[0].cut
    assert list(counted(names, numbers)) == ["Vertebrae L1-L2, L4", "Ribs left 4"]
    assert len(choose_rows(names, titles, numbers, 2)) == 2


def test_every_structure_of_the_tables_belongs_to_a_system() -> None:
    found: dict[str, set[str]] = {}
    for table in ("total_v1_104", "total_v2_117"):
        for codes in load_codes(table).values():
            found.setdefault(system_of(codes.name), set()).add(codes.name)
    assert {"liver", "lung_upper_lobe_left", "urinary_bladder", "face", "spinal_cord"} <= found[
        "organs"
    ]
    assert {"heart_atrium_left", "iliac_vena_left", "portal_vein_and_splenic_vein"} <= found[
        "vessels"
    ]
    assert {"iliopsoas_left", "autochthon_right"} <= found["muscles"]
    assert {"vertebrae_S1", "rib_left_1", "hip_left", "costal_cartilages"} <= found["bones"]
    assert len(found["organs"]) < 40


# The Secondary Capture


def capture(model: Model = MODEL, **options: Any) -> ResultInstance:
    scan = scan_of(affine_of((0, 1, 2), (-1, -1, 1)), **options)
    labels = LabelMap(labels=labelled(scan), source_digest=scan.digest)
    numbers = tuple(Number(label=label) for label in MARKERS)
    (result,) = encode(prepare(scan), labels, model, numbers, plan(objects=("preview",)))
    return result


def test_the_secondary_capture_says_what_it_is(tmp_path: Path) -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SPS1"
    result = capture(
        extra={
            "IssuerOfPatientID": "HOSPITAL",
            "PatientIdentityRemoved": "YES",
            "RequestAttributesSequence": [request],
            "BodyPartExamined": "ABDOMEN",
        }
    )
    path = tmp_path / "preview.dcm"
    path.write_bytes(result.data)
    assert dciodvfy_errors(path) == []
    dataset = pydicom.dcmread(BytesIO(result.data))
    assert (result.kind, dataset.SOPClassUID) == ("preview", "1.2.840.10008.5.1.4.1.1.7")
    assert dataset.SeriesInstanceUID == result.series_uid
    assert dataset.Modality == "OT"
    assert dataset.ConversionType == "WSD"
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert dataset.BurnedInAnnotation == "NO"
    assert dataset.RecognizableVisualFeatures == "NO"
    assert dataset.ImageComments == DISCLAIMER
    assert "not for diagnosis" in dataset.DerivationDescription
    assert dataset.SeriesDescription == "AI not for diagnosis: total-v1 PREVIEW of S2"
    assert dataset.IssuerOfPatientID == "HOSPITAL"
    assert dataset.PatientIdentityRemoved == "YES"
    assert dataset.DeidentificationMethod
    assert dataset.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    references = dataset.SourceImageSequence
    assert len(references) == SHAPE[2]
    equipment = dataset.ContributingEquipmentSequence
    assert sum("DeviceUID" in item for item in equipment) == 1
    with Image.open(BytesIO(result.picture)) as image:
        assert image.format == "PNG"
        assert image.info["Comment"] == DISCLAIMER
        assert np.array_equal(np.asarray(image), dataset.pixel_array)


@pytest.mark.parametrize(
    ("names", "part", "expected"),
    [
        (["liver", "heart_atrium_left"], "ABDOMEN", False),
        (["face"], "ABDOMEN", True),
        (["brain"], "", True),
        (["liver"], "HEAD", True),
    ],
)
def test_a_head_is_a_face_that_can_be_recognised(
    names: list[str], part: str, expected: bool
) -> None:
    scan = scan_of(affine_of((0, 1, 2), (-1, -1, 1)), extra={"BodyPartExamined": part})
    assert shows_face(prepare(scan), names) is expected


def test_equal_input_gives_equal_bytes_and_nothing_of_the_patient_is_drawn() -> None:
    first = capture()
    assert capture().data == first.data
    other = capture(extra={"PatientName": "Somebody^Else", "PatientID": "OTHER", "StudyDate": ""})
    assert other.sop_instance_uid != first.sop_instance_uid
    assert other.picture == first.picture
