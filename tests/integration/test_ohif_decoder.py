"""OHIF's own decoder gives the label map back voxel for voxel, however the slices lie.

The decoder is the one in OHIF 3.13.2 (`@cornerstonejs/adapters` 5.6.8), run by Node: it gets the
files of the source in the shuffled order in which they came, and the Segmentation.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import irregular_series
import marker_series
import numpy as np
import ohif
import pydicom
import pytest
from analysis_kit import ConstantPredictor, MarkerPredictor, files_below, model_card, plan
from enhanced_ct import concatenated, legacy_converted
from numpy.typing import NDArray
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.deflating import transcode
from dicomnode.domain.identifiers import TransferSyntaxUID
from dicomnode.domain.plans import Analysis
from dicomnode.pipeline import analyze

pytestmark = pytest.mark.peer("cornerstone")

STRAIGHT = (
    "supine",
    "prone",
    "feet first prone",
    "decubitus left",
    "coronal",
    "sagittal",
    "33 degrees oblique",
)
IRREGULAR = ("tilted by 18 degrees", "slices missing", "tilted and uneven")
MULTIFRAME = ("legacy converted", "enhanced, in two parts")
CASES = (*STRAIGHT, *IRREGULAR, *MULTIFRAME)
CARD = model_card((1.5, 1.5, 1.5))
KINDS = ("seg", "labelmap")
BOTH = plan(objects=KINDS)


def source(name: str) -> list[bytes]:
    if name in STRAIGHT:
        return marker_series.marker_series(name)
    if name in IRREGULAR:
        tilt, kept, down = irregular_series.CASES[name]
        return irregular_series.irregular_series(tilt, kept, down=down)
    files = marker_series.marker_series("33 degrees oblique")
    if name == "legacy converted":
        return [legacy_converted(files)]
    return concatenated(files, [slice(0, 13), slice(13, 40)], shared=True)


def analysed(name: str, files: list[bytes]) -> Analysis:
    kit = irregular_series if name in IRREGULAR else marker_series
    predictor = MarkerPredictor({m.label: m.centre for m in kit.MARKERS}, 1000, 1.5)
    return analyze(files, BOTH, predictor=predictor, card=CARD)


@pytest.fixture(scope="module")
def sources() -> dict[str, list[bytes]]:
    return {name: source(name) for name in CASES}


@pytest.fixture(scope="module")
def analyses(sources: dict[str, list[bytes]]) -> dict[str, Analysis]:
    return {name: analysed(name, files) for name, files in sources.items()}


@pytest.fixture(scope="module")
def decoded(
    sources: dict[str, list[bytes]],
    analyses: dict[str, Analysis],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, ohif.Decoded]:
    jobs = {
        f"{name} {result.kind}": (sources[name], result.data)
        for name in CASES
        for result in analyses[name].results
    }
    seg = analyses["supine"].results[0].data
    folder = tmp_path_factory.mktemp("decoder")
    jobs["deflated"] = (sources["supine"], deflated(seg, folder))
    jobs["turned over"] = (sources["supine"], turned_over(seg))
    return ohif.decode(jobs, folder)


def deflated(seg: bytes, folder: Path) -> bytes:
    """Return a Segmentation as it goes to an archive that takes Deflated Explicit VR."""
    (folder / "explicit.dcm").write_bytes(seg)
    syntax = TransferSyntaxUID(DeflatedExplicitVRLittleEndian)
    transcode(folder / "explicit.dcm", folder / "deflated.dcm", syntax)
    return (folder / "deflated.dcm").read_bytes()


def turned_over(seg: bytes) -> bytes:
    """Give every frame the place and the source of the frame that is as far from the other end."""
    dataset = pydicom.dcmread(BytesIO(seg))
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    places = [(g.PlanePositionSequence, g.DerivationImageSequence) for g in groups]
    for group, (position, derivation) in zip(groups, reversed(places), strict=True):
        group.PlanePositionSequence, group.DerivationImageSequence = position, derivation
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def stored_labels(analysis: Analysis) -> dict[tuple[str, int], NDArray[np.uint8]]:
    """Return the label map's slices by SOP Instance UID and frame number, from 1."""
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        keys = zip(arrays["sop_instance_uids"].tolist(), arrays["frame_numbers"], strict=True)
        return {
            (uid, int(frame) or 1): labels
            for (uid, frame), labels in zip(keys, arrays["labels"], strict=True)
        }


def by_label(found: ohif.Decoded, seg: bytes) -> dict[tuple[str, int], NDArray[np.uint8]]:
    """Put the model's labels in place of Segment Numbers, as Segment Description has them."""
    assert found.problems == ()
    table = np.zeros(256, np.uint8)
    for item in pydicom.dcmread(BytesIO(seg)).SegmentSequence:
        assert found.segments[item.SegmentNumber] == item.SegmentLabel
        if "label " in item.get("SegmentDescription", ""):
            text = item.SegmentDescription.split("label ")[1]
            table[item.SegmentNumber] = int(text.split(":")[0])
    return {key: table[numbers] for key, numbers in found.numbers.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_the_label_map_comes_back_voxel_for_voxel(
    name: str, kind: str, analyses: dict[str, Analysis], decoded: dict[str, ohif.Decoded]
) -> None:
    (seg,) = (item for item in analyses[name].results if item.kind == kind)
    expected = stored_labels(analyses[name])
    found = by_label(decoded[f"{name} {kind}"], seg.data)
    assert set(found) == set(expected)
    assert set(np.unique(list(expected.values()))) == {0, 3, 5, 90}
    empty = [key for key, labels in expected.items() if not labels.any()]
    assert empty, "some slices hold nothing; a BINARY Segmentation has no frame of them"
    assert {key for key in expected if not np.array_equal(found[key], expected[key])} == set()


def test_a_deflated_segmentation_is_the_same(decoded: dict[str, ohif.Decoded]) -> None:
    plain, small = decoded["supine seg"], decoded["deflated"]
    assert small.problems == ()
    assert set(small.numbers) == set(plain.numbers)
    assert all(np.array_equal(small.numbers[key], plain.numbers[key]) for key in plain.numbers)


def test_a_segmentation_that_is_turned_over_is_noticed(
    analyses: dict[str, Analysis], decoded: dict[str, ohif.Decoded]
) -> None:
    # Says that the test above can fail.
    seg = analyses["supine"].results[0]
    expected, found = stored_labels(analyses["supine"]), by_label(decoded["turned over"], seg.data)
    assert any(not np.array_equal(found[key], expected[key]) for key in expected)


def test_the_label_map_of_a_real_series_comes_back(test_data: Path, tmp_path: Path) -> None:
    files = files_below(test_data / "crlm-ct-1004/image")
    box = {3: (slice(25, 50), slice(50, 60), slice(80, 110)), 5: (slice(5, 9),) * 3}
    card = model_card((3.0, 3.0, 3.0))
    analysis = analyze(files, BOTH, predictor=ConstantPredictor(box), card=card)
    jobs = {item.kind: (files, item.data) for item in analysis.results}
    for kind, found in ohif.decode(jobs, tmp_path).items():
        labels = by_label(found, jobs[kind][1])
        for key, expected in stored_labels(analysis).items():
            assert np.array_equal(labels[key], expected)
