"""Files for research: read by nibabel and SimpleITK, and formed as TotalSegmentator's own."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import nibabel
import numpy as np
import pytest
import SimpleITK
from analysis_kit import ConstantPredictor, model_card, plan

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import FILES, Analysis
from dicomnode.pipeline import analyze
from dicomnode.results.codes import load_codes
from dicomnode.results.research import COLUMNS, NOTE, label_nifti, statistics_json

HU = np.full((20, 24, 16), -1000, np.int16)
HU[4:16, 4:18] = 50
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
AFFINE[:3, 3] = [11.0, -7.0, 100.0]
SERIES = write_series(HU, AFFINE)
BOX = {5: (slice(2, 9), slice(3, 9), slice(4, 9)), 2: (slice(9, 16), slice(3, 9), slice(12, 15))}
CARD = model_card((2.0, 2.0, 3.0))
V2 = {label: codes.name for label, codes in load_codes("total_v2_117").items()}


def analysed(files: list[bytes] = SERIES, **changes: object) -> Analysis:
    given = plan(objects=FILES, **changes)
    return analyze(files, given, predictor=ConstantPredictor(BOX), card=CARD)


def data_of(analysis: Analysis) -> dict[str, bytes]:
    return {item.kind: item.data for item in analysis.results}


def table_of(path: Path) -> ElementTree.Element:
    """Return the XML in a file's first header extension."""
    (extension,) = nibabel.load(path).header.extensions
    assert extension.get_code() == 0
    content = extension.get_content()
    return ElementTree.fromstring(content if isinstance(content, bytes) else content.encode())


def names_in(root: ElementTree.Element) -> dict[int, str]:
    rows = root.findall("VolumeInformation/LabelTable/Label")
    return {int(row.attrib["Key"]): str(row.text) for row in rows}


def test_labels_lie_where_the_label_map_says(tmp_path: Path) -> None:
    analysis = analysed()
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(data_of(analysis)["nifti"])
    (tmp_path / "map.npz").write_bytes(analysis.label_map)
    with np.load(tmp_path / "map.npz") as stored:
        labels = stored["labels"]
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    read = np.asarray(image.dataobj)
    assert (read.transpose(2, 1, 0) == labels).all()
    # The predictor's box is of [z, y, x] that run to head, front and right; the series' grid is
    # that of the array, so the world of the box is known without the code under test.
    x, y, z = nibabel.affines.apply_affine(image.affine, np.argwhere(read == 5)).T
    assert (z.min(), z.max()) == (100 + 3 * 2, 100 + 3 * 8)
    assert (x.min(), x.max()) == (11 - 2 * (19 - 4), 11 - 2 * (19 - 8))
    assert (y.min(), y.max()) == (-7 - 2 * (23 - 3), -7 - 2 * (23 - 8))
    assert image.header["descrip"].item() == NOTE.encode()

    other = SimpleITK.ReadImage(str(path))
    assert (SimpleITK.GetArrayFromImage(other) == labels).all()
    first = [int(v) for v in np.argwhere(read == 5)[0]]
    world = np.array(other.TransformIndexToPhysicalPoint(first)) * [-1, -1, 1]
    expected = nibabel.affines.apply_affine(image.affine, first)
    assert np.allclose(world, expected, atol=1e-4)


def test_names_stand_in_the_header_as_totalsegmentator_writes_them(
    tmp_path: Path, test_data: Path
) -> None:
    codes = load_codes("total_v2_117")
    labels = np.zeros((4, 5, 6), np.uint8)
    (tmp_path / "ours.nii.gz").write_bytes(label_nifti(labels, np.eye(4), V2, codes))
    ours = table_of(tmp_path / "ours.nii.gz")
    theirs = table_of(test_data / "totalsegmentator/example_seg_v2_117_fast.nii.gz")
    assert names_in(ours) == names_in(theirs) == V2
    assert ours.tag == theirs.tag
    for path in ("VolumeInformation", "VolumeInformation/LabelTable/Label"):
        mine, other = ours.find(path), theirs.find(path)
        assert mine is not None
        assert other is not None
        assert mine.attrib.keys() == other.attrib.keys()
    kind = "VolumeInformation/VolumeType"
    assert ours.findtext(kind) == theirs.findtext(kind) == "Label"
    colours = {
        tuple(row.attrib[key] for key in ("Red", "Green", "Blue")) for row in ours.iter("Label")
    }
    assert len(colours) > 60
    assert all(0 <= float(part) <= 1 for colour in colours for part in colour)


def test_statistics_are_formed_as_totalsegmentators(test_data: Path) -> None:
    path = test_data / "totalsegmentator/example_seg_sm_fast_statistics.json"
    theirs = json.loads(path.read_text())
    ours = json.loads(statistics_json((), V2))
    assert list(ours) == list(theirs)
    assert {tuple(row) for row in ours.values()} == {tuple(row) for row in theirs.values()}
    indents = [
        text.splitlines()[1] for text in (statistics_json((), V2).decode(), path.read_text())
    ]
    assert indents[0] == indents[1]


def test_statistics_have_cubic_millimetres_and_nothing_of_what_is_cut() -> None:
    found = json.loads(data_of(analysed())["statistics"])
    voxels = 7 * 6 * 5
    assert found["liver"]["volume"] == pytest.approx(voxels * 2 * 2 * 3)
    assert isinstance(found["liver"]["intensity"], float)
    assert found["spleen"] == {"volume": 0.0, "intensity": 0.0}
    assert found["kidney_right"] == {"volume": 0.0, "intensity": 0.0}, "the last slice cuts it"
    assert len(found) == 104


def test_a_row_for_every_structure_that_was_found() -> None:
    analysis = analysed()
    rows = list(csv.DictReader(StringIO(data_of(analysis)["table"].decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    kidney, liver = rows
    assert (liver["structure"], liver["incomplete"], liver["unit"]) == ("liver", "no", "HU")
    assert (kidney["laterality"], kidney["incomplete"]) == ("Right", "yes")
    assert "CUT_AT_ENDS" in kidney["findings"].split()
    assert "CUT_AT_ENDS" not in liver["findings"].split()
    assert float(liver["volume_ml"]) == pytest.approx(7 * 6 * 5 * 12 / 1000)
    assert float(liver["median"]) <= 50
    assert liver["series_instance_uid"] == analysis.series_uid
    assert {row["note"] for row in rows} == {NOTE}


def test_equal_input_gives_equal_bytes_and_nothing_names_the_patient() -> None:
    options = SeriesOptions()
    first, again = analysed(), analysed()
    assert [i.data for i in first.results] == [i.data for i in again.results]
    uids = [item.sop_instance_uid for item in first.results]
    assert uids == [item.sop_instance_uid for item in again.results]
    assert len(set(uids)) == len(FILES)
    for item in first.results:
        data = gzip.decompress(item.data) if item.kind == "nifti" else item.data
        for text in (options.subject.patient_id, options.subject.patient_name):
            assert text.encode() not in data


def test_an_uneven_stack_has_no_nifti_but_its_numbers() -> None:
    uneven = [data for number, data in enumerate(SERIES) if number != 7]
    assert list(data_of(analysed(uneven))) == ["statistics", "table"]


def test_the_files_stand_beside_the_objects() -> None:
    given = replace(plan(), objects=("sr", "seg", *FILES))
    analysis = analyze(SERIES, given, predictor=ConstantPredictor(BOX), card=CARD)
    names = [item.file_name for item in analysis.results]
    assert names == ["seg.dcm", "sr.dcm", "labels.nii.gz", "statistics.json", "structures.csv"]
