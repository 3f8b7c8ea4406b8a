"""SEG and SR say what was found, of whom, by what, and that it is not for diagnosis."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from analysis_kit import plan
from pydicom.dataset import Dataset
from results_kit import (
    MODEL,
    Number,
    code,
    comments,
    empty,
    groups,
    items,
    labels_of,
    named,
    numbers,
    read,
    results,
    scan_of,
)

from dicomnode.demo.series import Subject
from dicomnode.domain.plans import Predecessor
from dicomnode.results import encode, prepare
from dicomnode.results.uids import IMPLEMENTATION_CLASS_UID, series_number
from dicomnode.scan import LabelMap


def test_the_result_set_is_seg_then_sr() -> None:
    seg, sr = results()
    assert (seg.kind, seg.sop_class_uid) == ("seg", "1.2.840.10008.5.1.4.1.1.66.4")
    assert (sr.kind, sr.sop_class_uid) == ("sr", "1.2.840.10008.5.1.4.1.1.88.34")
    assert seg.summary == {"segments": 2, "frames": 6}
    assert sr.summary == {"measurement_groups": 2}
    for instance in (seg, sr):
        dataset = read(instance)
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert instance.transfer_syntax_uid == "1.2.840.10008.1.2.1"
        assert dataset.SOPInstanceUID == instance.sop_instance_uid
        assert dataset.SeriesInstanceUID == instance.series_uid
        assert dataset.SOPClassUID == instance.sop_class_uid
        assert dataset.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert dataset.file_meta.ImplementationVersionName.startswith("DICOMNODE_")


def test_segments_carry_codes_laterality_colour_and_the_models_own_name() -> None:
    right_kidney, liver = read(results()[0]).SegmentSequence
    assert (right_kidney.SegmentNumber, liver.SegmentNumber) == (1, 2)
    assert right_kidney.SegmentLabel == "Right kidney"
    assert right_kidney.SegmentDescription == "total-v1 label 2: kidney_right"
    assert code(right_kidney.SegmentedPropertyCategoryCodeSequence[0]) == ("91723000", "SCT")
    kind = right_kidney.SegmentedPropertyTypeCodeSequence[0]
    assert code(kind) == ("64033007", "SCT")
    assert code(kind.SegmentedPropertyTypeModifierCodeSequence[0]) == ("24028007", "SCT")
    assert (
        "SegmentedPropertyTypeModifierCodeSequence"
        not in liver.SegmentedPropertyTypeCodeSequence[0]
    )
    assert list(right_kidney.RecommendedDisplayCIELabValue) == [34086, 40912, 33059]
    assert right_kidney.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = right_kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert code(algorithm.AlgorithmFamilyCodeSequence[0]) == ("123110", "DCM")
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Model of the tests", "1.5")


def test_a_region_with_its_side() -> None:
    scan = scan_of()
    labels = labels_of(scan)
    labels.labels[labels.labels == 2] = 23
    model = replace(MODEL, code_table="total_v2_117", structures={})
    numbers = (Number(label=23), Number(label=5))
    seg, sr = encode(prepare(scan), labels, model, numbers, plan())
    cyst = next(item for item in read(seg).SegmentSequence if "cyst" in item.SegmentLabel)
    region = cyst.AnatomicRegionSequence[0]
    assert code(region) == ("64033007", "SCT")
    assert code(region.AnatomicRegionModifierSequence[0]) == ("7771000", "SCT")
    site = next(item for item in items(read(sr)) if named(item, "Finding Site") == "Kidney")
    assert named(site.ContentSequence[0], "Laterality") == "Left"


def test_frames_hold_the_voxels_and_refer_to_their_slices() -> None:
    scan = scan_of()
    labels = labels_of(scan)
    seg = read(results(scan, labels)[0])
    frames = seg.pixel_array
    assert seg.NumberOfFrames == 6 == len(frames)
    for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        index = scan.sop_instance_uids.index(source)
        expected = labels.labels[index] == {1: 2, 2: 5}[number]
        assert expected.any()
        assert np.array_equal(frame.astype(bool), expected)
        position = item.PlanePositionSequence[0].ImagePositionPatient
        assert [float(value) for value in position] == [
            float(value) for value in scan.sources[index].fields["ImagePositionPatient"]
        ]
    shared = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(value) for value in shared.PixelSpacing] == [2.0, 1.5]
    assert float(shared.SpacingBetweenSlices) == 2.5
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == scan.header.SeriesInstanceUID
    assert len(referenced.ReferencedInstanceSequence) == len(scan.sources)
    assert seg.FrameOfReferenceUID == scan.header.FrameOfReferenceUID


def test_identity_is_copied_and_everything_says_not_for_diagnosis() -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    request.ScheduledProcedureStepID = "SPS1"
    scan = scan_of(
        subject=Subject(patient_id="A 1", patient_name="Nobody^Never", accession="ACC"),
        extra={"IssuerOfPatientID": "HOSPITAL", "RequestAttributesSequence": [request]},
    )
    seg, sr = (read(instance) for instance in results(scan))
    for dataset in (seg, sr):
        assert dataset.PatientID == "A 1"
        assert dataset.IssuerOfPatientID == "HOSPITAL"
        assert dataset.PatientName == "Nobody^Never"
        assert dataset.PatientBirthDate == "19700101"
        assert dataset.AccessionNumber == "ACC"
        assert dataset.StudyInstanceUID == scan.header.StudyInstanceUID
        assert dataset.SeriesDescription.startswith("AI not for diagnosis: total-v1 S")
    assert seg.SeriesDescription == "AI not for diagnosis: total-v1 SEG of S2"
    assert "not for diagnosis" in seg.ContentDescription
    assert seg.RequestAttributesSequence[0].ScheduledProcedureStepID == "SPS1"
    assert sr.ReferencedRequestSequence[0].RequestedProcedureID == "RP1"
    assert sr.ReferencedRequestSequence[0].AccessionNumber == "ACC"
    assert "not for diagnosis" in comments(sr)[0]


def test_the_node_and_the_weights_are_named_as_equipment() -> None:
    for instance in results():
        equipment = read(instance).ContributingEquipmentSequence
        ours = [
            item for item in equipment if item.Manufacturer == "dicomnode" and "DeviceUID" in item
        ]
        assert len(ours) == 1
        assert code(ours[0].PurposeOfReferenceCodeSequence[0]) == ("109102", "DCM")
        assert ours[0].ManufacturerModelName == "total-v1"
        assert ours[0].ContributionDateTime == "20260304050607+0000"
        assert ours[0].DeviceUID.startswith("2.25.")
    other = read(results(model=replace(MODEL, weights_digest="cd" * 32))[0])
    assert {item.get("DeviceUID") for item in other.ContributingEquipmentSequence} != {
        item.get("DeviceUID") for item in equipment
    }


def test_times_are_the_plans_in_the_zone_of_the_source() -> None:
    seg, _ = results()
    dataset = read(seg)
    for kind in ("Content", "Series", "InstanceCreation"):
        assert dataset[f"{kind}Date"].value == "20260304"
        assert dataset[f"{kind}Time"].value == "050607"
    dataset = read(results(scan_of(extra={"TimezoneOffsetFromUTC": "-0530"}))[0])
    assert (dataset.ContentDate, dataset.ContentTime) == ("20260303", "233607")
    assert dataset.TimezoneOffsetFromUTC == "-0530"


def test_equal_input_gives_equal_bytes_and_any_change_other_uids() -> None:
    scan = scan_of()
    first, again = results(scan), results(scan_of())
    assert [item.data for item in first] == [item.data for item in again]
    other_labels = labels_of(scan)
    other_labels.labels[2, 3, 4] = 0
    variants = [
        results(scan_of(seed=1)),
        results(scan_of(subject=Subject(patient_name="Other"))),
        results(scan_of(extra={"ContrastBolusAgent": "OMNI"})),
        results(scan, other_labels),
        results(model=replace(MODEL, weights_digest="cd" * 32)),
        results(model=replace(MODEL, version="2")),
        results(given=plan(analysed_at=datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC))),
        results(given=plan(generation=2)),
        results(given=plan(identity_revision=1)),
        results(given=plan(station_name="OTHER")),
    ]
    uids = {item.sop_instance_uid for variant in (first, *variants) for item in variant}
    assert len(uids) == 2 * (len(variants) + 1)
    assert results(given=plan(job_id="2"))[0].data == first[0].data


def test_nothing_found_is_a_report_without_segmentation() -> None:
    scan = scan_of()
    (sr,) = results(scan, empty(scan))
    assert sr.kind == "sr"
    dataset = read(sr)
    said = comments(dataset)
    assert any("found none" in sentence for sentence in said)
    assert not any(named(item, "Measurement Group") for item in items(dataset))


def test_the_report_measures_every_segment() -> None:
    scan = scan_of(extra={"ContrastBolusAgent": "OMNI 350"})
    seg, sr = results(scan)
    report = read(sr)
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    kidney, liver = groups(report)
    segments = read(seg).SegmentSequence
    for group, segment in zip((kidney, liver), segments, strict=True):
        found = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group}
        assert segment.TrackingUID == found["Tracking Unique Identifier"].UID
        assert found["Tracking Identifier"].TextValue == segment.TrackingID
        reference = found["Referenced Segment"].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.sop_instance_uid
        assert reference.ReferencedSegmentNumber == segment.SegmentNumber
        assert scan.header.SeriesInstanceUID == found["Source Series for Segmentation"].UID
        assert "contrast given (OMNI 350), 120 kVp, kernel B" in found["Comment"].TextValue
    assert numbers(kidney) == [
        ("Volume", 12.346, "mL", None),
        ("Attenuation Coefficient", 61.3, "[hnsf'U]", "Mean"),
        ("Attenuation Coefficient", 4.0, "[hnsf'U]", "Standard Deviation"),
        ("Attenuation Coefficient", 60.5, "[hnsf'U]", "Median"),
    ]


def test_a_structure_cut_by_the_field_of_view_has_no_volume() -> None:
    _, liver = groups(read(results()[1]))
    assert [name for name, *_ in numbers(liver)] == ["Attenuation Coefficient"] * 3
    assert "cut by the field of view" in liver[-1].TextValue


def test_a_segment_of_padding_alone_has_no_hounsfield_values() -> None:
    scan = scan_of()
    given = (Number(label=2, mean=None, sd=None, median=None), Number(label=5))
    sr = encode(prepare(scan), labels_of(scan), MODEL, given, plan())[1]
    assert [name for name, *_ in numbers(groups(read(sr))[0])] == ["Volume"]


def test_what_was_left_out_is_said_in_the_description_and_the_report() -> None:
    seg, sr = results(given=plan(total_in_series=11), findings=("3 images were left out.",))
    assert (
        read(seg).SeriesDescription == "AI not for diagnosis: total-v1 SEG of S2 (8 of 11 slices)"
    )
    said = comments(read(sr))
    assert "Only 8 of the 11 instances of the series were analysed." in said
    assert "3 images were left out." in said


def test_demonstration_models_say_demo_and_long_names_fit() -> None:
    model = replace(MODEL, id="a-model-with-quite-a-long-identifier", demonstration=True)
    for instance in results(model=model, given=plan(total_in_series=1000)):
        description = read(instance).SeriesDescription
        assert description.startswith("DEMO AI not for diagnosis: a-mod")
        assert description.endswith(" of S2 (8 of 1000 slices)")
        assert len(description) <= 64


def test_a_new_report_names_the_one_it_replaces() -> None:
    predecessor = Predecessor(
        study_uid="1.2.3", series_uid="1.2.4", sop_class_uid="1.2.5", sop_instance_uid="1.2.6"
    )
    item = read(results(given=plan(predecessors=(predecessor,)))[1]).PredecessorDocumentsSequence[0]
    assert item.StudyInstanceUID == "1.2.3"
    series = item.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.4"
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.6"


def test_lossy_sources_are_flagged() -> None:
    seg, sr = results(scan_of(extra={"LossyImageCompression": "01"}))
    assert read(seg).LossyImageCompression == "01"
    assert "lossy compression" in groups(read(sr))[0][-1].TextValue


def test_labels_of_another_patient_or_grid_are_an_error() -> None:
    scan = scan_of()
    with pytest.raises(ValueError, match="another scan"):
        results(scan, labels_of(scan_of(seed=1)))
    small = LabelMap(labels=np.zeros((1, 2, 3), np.uint8), source_digest=scan.digest)
    with pytest.raises(ValueError, match="label map"):
        results(scan, small)
    unknown = labels_of(scan)
    unknown.labels[0, 0, 0] = 200
    with pytest.raises(ValueError, match=r"labels \[200\] are not in the code table"):
        results(scan, unknown)


@pytest.mark.parametrize("base", [1, 99000, 2_000_000_000])
def test_series_numbers_are_within_their_range_and_do_not_meet(base: int) -> None:
    given = plan(series_number_base=base)
    found = [
        series_number(kind, given, f"1.2.{index}") for index in range(300) for kind in ("seg", "sr")
    ]
    assert len(set(found)) == len(found)
    assert min(found) >= base
    assert max(found) < 2**31
