"""What a reader needs of a Segmentation stands in it, BINARY and LABELMAP, for all structures."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from others import dciodvfy_errors
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from seg_kit import MODEL, PLAN, source_of, turned

from dicomnode.domain.plans import SEG_PARTS
from dicomnode.results import Model, encode
from dicomnode.results.codes import load_codes
from dicomnode.results.headers import Source
from dicomnode.results.systems import system_of
from dicomnode.results.uids import device_uid
from dicomnode.scan import LabelMap

TABLES = {"total_v1_104": 104, "total_v2_117": 117}
KINDS = ("seg", "labelmap")
SHAPE = (7, 16, 17)


def model_of(table: str) -> Model:
    names = {label: row.name for label, row in load_codes(table).items()}
    return replace(MODEL, code_table=table, structures=names)


def every_structure(count: int) -> np.ndarray:
    """All labels in slices 1 to 5, in each of them some others beside."""
    cells = np.arange(np.prod(SHAPE)).reshape(SHAPE) % (count + 1)
    cells[[0, -1]] = 0
    return cells.astype(np.uint8)


@cache
def encoded(kind: str, table: str) -> bytes:
    return encoded_of(kind, table, source_of(SHAPE, turned()), model_of(table))


def encoded_of(kind: str, table: str, source: Source, model: Model) -> bytes:
    found = LabelMap(labels=every_structure(TABLES[table]), source_digest=source.scan.digest)
    (result,) = encode(source, found, model, (), replace(PLAN, objects=(kind,)))
    return result.data


def written(
    kind: str, table: str = "total_v1_104", source: Source | None = None, model: Model | None = None
) -> Dataset:
    if source is None and model is None:
        return pydicom.dcmread(BytesIO(encoded(kind, table)))
    source = source or source_of(SHAPE, turned())
    data = encoded_of(kind, table, source, model or model_of(table))
    return pydicom.dcmread(BytesIO(data))


def code(item: Dataset) -> tuple[str, str]:
    return item.CodeValue, item.CodingSchemeDesignator


def codes_of(segment: Dataset) -> tuple[object, ...]:
    """All codes that say what a segment is."""
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    region = segment.get("AnatomicRegionSequence")
    return (
        code(segment.SegmentedPropertyCategoryCodeSequence[0]),
        code(kind),
        *map(code, kind.get("SegmentedPropertyTypeModifierCodeSequence", ())),
        "in",
        *map(code, region or ()),
        *map(code, region[0].get("AnatomicRegionModifierSequence", ()) if region else ()),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("table", "count"), TABLES.items())
def test_every_segment_is_told_from_every_other(kind: str, table: str, count: int) -> None:
    dataset = written(kind, table)
    rows = load_codes(table)
    segments = [item for item in dataset.SegmentSequence if item.SegmentNumber]
    assert [item.SegmentNumber for item in segments] == list(range(1, count + 1))
    assert len({codes_of(item) for item in segments}) == count
    for keyword in ("SegmentLabel", "TrackingID", "TrackingUID", "SegmentDescription"):
        assert len({item[keyword].value for item in segments}) == count, keyword
    for label, item in zip(rows, segments, strict=True):
        row = rows[label]
        assert item.SegmentLabel == row.segment_label
        assert item.TrackingID == f"total-v1 {row.name}"
        assert item.SegmentDescription == f"total-v1 label {label}: {row.name}"
        assert tuple(item.RecommendedDisplayCIELabValue) == row.cielab
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert code(algorithm.AlgorithmFamilyCodeSequence[0]) == ("123110", "DCM")
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (MODEL.title, "1.5")
        side = row.type_modifier or row.region_modifier
        if side is not None:
            assert (side.value, "SCT") in codes_of(item)
            assert side.meaning.lower() in item.SegmentLabel.lower()


def test_sides_and_regions_stand_where_the_standard_nests_them() -> None:
    """Type Modifier within the type (C.8.20.2.4), Region Modifier within the region."""
    found = {
        item.SegmentDescription: item for item in written("seg", "total_v2_117").SegmentSequence
    }
    kidney = found["total-v1 label 2: kidney_right"]
    cyst = found["total-v1 label 23: kidney_cyst_left"]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert code(kind.SegmentedPropertyTypeModifierCodeSequence[0]) == ("24028007", "SCT")
    assert "AnatomicRegionSequence" not in kidney
    assert code(cyst.SegmentedPropertyCategoryCodeSequence[0]) == ("49755003", "SCT")
    region = cyst.AnatomicRegionSequence[0]
    assert code(region) == ("64033007", "SCT")
    assert code(region.AnatomicRegionModifierSequence[0]) == ("7771000", "SCT")
    assert (
        "SegmentedPropertyTypeModifierCodeSequence" not in cyst.SegmentedPropertyTypeCodeSequence[0]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_made_it_is_known_by_its_weights(kind: str) -> None:
    def equipment(model: Model) -> Dataset:
        items = written(kind, model=model).ContributingEquipmentSequence
        (ours,) = [
            item
            for item in items
            if code(item.PurposeOfReferenceCodeSequence[0]) == ("109102", "DCM")
            and "DeviceUID" in item
        ]
        return ours

    first = equipment(model_of("total_v1_104"))
    assert (first.Manufacturer, first.ManufacturerModelName) == ("dicomnode", "total-v1")
    assert list(first.SoftwareVersions)[1:] == ["1.5"]
    assert first.DeviceUID == device_uid(MODEL)
    other = equipment(replace(model_of("total_v1_104"), weights_digest="cd" * 32))
    assert other.DeviceUID != first.DeviceUID


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_says_where_it_lies_and_from_which_image(kind: str) -> None:
    source = source_of(SHAPE, turned())
    dataset = written(kind, source=source)
    (series,) = dataset.ReferencedSeriesSequence
    headers = {str(header.SOPInstanceUID): header for header in source.headers}
    assert series.SeriesInstanceUID == source.headers[0].SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == set(
        headers
    )
    assert (dataset.Rows, dataset.Columns) == SHAPE[1:]
    shared = dataset.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    assert list(orientation) == list(source.headers[0].ImageOrientationPatient)
    frames = dataset.PerFrameFunctionalGroupsSequence
    assert len(frames) == dataset.NumberOfFrames
    for item in frames:
        (derivation,) = item.DerivationImageSequence
        assert code(derivation.DerivationCodeSequence[0]) == ("113076", "DCM")
        (image,) = derivation.SourceImageSequence
        assert code(image.PurposeOfReferenceCodeSequence[0]) == ("121322", "DCM")
        assert image.SpatialLocationsPreserved == "YES"
        header = headers[image.ReferencedSOPInstanceUID]
        assert image.ReferencedSOPClassUID == header.SOPClassUID
        position = item.PlanePositionSequence[0].ImagePositionPatient
        # As it is written there, not only in value.
        assert [str(value) for value in position] == [
            str(value) for value in header.ImagePositionPatient
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_dimension_indices_order_the_frames(kind: str) -> None:
    source = source_of(SHAPE, turned())
    dataset = written(kind, source=source)
    (organization,) = dataset.DimensionOrganizationSequence
    pointers = [
        (item.DimensionIndexPointer, item.FunctionalGroupPointer)
        for item in dataset.DimensionIndexSequence
    ]
    place = (Tag("ImagePositionPatient"), Tag("PlanePositionSequence"))
    number = (Tag("ReferencedSegmentNumber"), Tag("SegmentIdentificationSequence"))
    assert pointers == ([number, place] if kind == "seg" else [place])
    for item in dataset.DimensionIndexSequence:
        assert item.DimensionOrganizationUID == organization.DimensionOrganizationUID
    rows, columns = np.reshape(source.scan.orientation, (2, 3))
    found = []
    depths: dict[int, float] = {}
    for item in dataset.PerFrameFunctionalGroupsSequence:
        values = np.ravel(item.FrameContentSequence[0].DimensionIndexValues).tolist()
        found.append(values)
        if kind == "seg":
            assert values[0] == item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = [float(value) for value in item.PlanePositionSequence[0].ImagePositionPatient]
        depth = float(np.cross(rows, columns) @ position)
        assert depths.setdefault(values[-1], depth) == pytest.approx(depth)
    assert found == sorted(found)
    assert len({tuple(values) for values in found}) == len(found)
    # Index 1 is a place at one end of the stack, and the others follow in their order.
    assert sorted(depths) == list(range(1, len(depths) + 1))
    steps = np.diff([depths[index] for index in sorted(depths)])
    assert (steps > 0).all() or (steps < 0).all()
    assert len(depths) == (5 if kind == "seg" else 7)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_source_says_of_order_and_deidentification_travels(kind: str) -> None:
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "RP1", "SPS1"
    extra = {
        "RequestAttributesSequence": [request],
        "PerformedProcedureStepID": "PPS1",
        "PerformedProcedureStepStartDate": "20260101",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "by hand",
    }
    dataset = written(kind, source=source_of(SHAPE, extra=extra))
    assert dataset.RequestAttributesSequence[0].RequestedProcedureID == "RP1"
    assert dataset.DeidentificationMethod == "by hand"
    assert not any(element.keyword.startswith("PerformedProcedure") for element in dataset)
    assert dataset.InstanceNumber == 1


def test_split_by_systems_each_structure_is_in_one_series_and_known_as_before() -> None:
    source, labels = source_of(SHAPE, turned()), every_structure(104)
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    model = model_of("total_v1_104")
    objects = ("seg", *SEG_PARTS)
    whole, *parts = encode(source, found, model, (), replace(PLAN, objects=objects))
    assert [item.kind for item in parts] == [
        "seg_organs",
        "seg_bones",
        "seg_muscles",
        "seg_vessels",
    ]
    assert len({item.series_uid for item in (whole, *parts)}) == 5
    datasets = [pydicom.dcmread(BytesIO(item.data)) for item in (whole, *parts)]
    assert len({item.SeriesNumber for item in datasets}) == 5
    assert datasets[2].SeriesDescription == "AI not for diagnosis: total-v1 SEG BONES of S2"
    known = {item.TrackingUID: codes_of(item) for item in datasets[0].SegmentSequence}
    again = np.zeros(SHAPE, np.uint8)
    for item, dataset in zip(parts, datasets[1:], strict=True):
        numbers = [segment.SegmentNumber for segment in dataset.SegmentSequence]
        assert numbers == list(range(1, len(numbers) + 1))
        table = np.zeros(len(numbers) + 1, np.uint8)
        for segment in dataset.SegmentSequence:
            assert known.pop(segment.TrackingUID) == codes_of(segment)
            label, name = re.findall(r"label (\d+): (\w+)", segment.SegmentDescription)[0]
            assert system_of(name) == SEG_PARTS[item.kind]
            table[segment.SegmentNumber] = int(label)
        uids = [str(header.SOPInstanceUID) for header in source.headers]
        seg = hd.seg.segread(BytesIO(item.data))
        read = seg.get_pixels_by_source_instance(
            uids, combine_segments=True, ignore_spatial_locations=True,
            assert_missing_frames_are_empty=True,
        )  # fmt: skip
        again += table[read]
    assert known == {}
    assert np.array_equal(again, labels)


def test_a_system_of_which_nothing_was_found_has_no_series() -> None:
    source = source_of(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4, 3:9, 3:9] = 5  # the liver
    found = LabelMap(labels=labels, source_digest=source.scan.digest)
    given = replace(PLAN, objects=tuple(SEG_PARTS))
    (only,) = encode(source, found, model_of("total_v1_104"), (), given)
    assert (only.kind, only.summary["segments"]) == ("seg_organs", 1)


@pytest.mark.parametrize("kind", SEG_PARTS)
def test_dciodvfy_finds_no_error_in_the_parts(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    written(kind).save_as(path)
    assert dciodvfy_errors(path, all_frames=True) == []
