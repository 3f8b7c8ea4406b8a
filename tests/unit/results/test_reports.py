"""Forms of one report: the same measurements, other SOP Classes and references."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analysis_kit import plan
from pydicom.dataset import Dataset
from results_kit import (
    AFFINE,
    LABEL_MAP_STORAGE,
    MODEL,
    Number,
    comments,
    empty,
    groups,
    items,
    labels_of,
    numbers,
    read,
    reports_of_label_map,
    results,
    scan_of,
)

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.alternatives import REPORT_CLASSES, reports
from dicomnode.domain.plans import LABELMAP, Predecessor, ResultInstance
from dicomnode.imaging import read_scan
from dicomnode.results import encode, prepare
from dicomnode.results.codes import load_codes
from dicomnode.results.seg import find_present, find_segments
from dicomnode.results.sr import Report, encode_reports
from dicomnode.results.uids import content_parts
from dicomnode.scan import LabelMap

EVERYTHING = ("seg", "rtstruct", "preview", "sr")


@pytest.fixture(scope="module")
def made() -> tuple[ResultInstance, ...]:
    return results(given=plan(objects=EVERYTHING, reports=reports([EVERYTHING])))


def forms_of(made: tuple[ResultInstance, ...]) -> list[ResultInstance]:
    return [item for item in made if item.kind == "sr"]


def evidence(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """SOP Instance UID -> (SOP Class UID, Series Instance UID) of the evidence."""
    assert "PertinentOtherEvidenceSequence" not in dataset
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == dataset.StudyInstanceUID
    return {
        reference.ReferencedSOPInstanceUID: (
            reference.ReferencedSOPClassUID,
            series.SeriesInstanceUID,
        )
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }


def referred(dataset: Dataset) -> set[str]:
    """What the content tree refers to."""
    return {
        reference.ReferencedSOPInstanceUID
        for item in items(dataset)
        for reference in item.get("ReferencedSOPSequence", [])
    }


def test_every_form_is_an_instance_of_its_own(made: tuple[ResultInstance, ...]) -> None:
    forms = forms_of(made)
    assert [form.sop_class_uid for form in forms] == list(REPORT_CLASSES) * 3
    assert [form.refers_to for form in forms[::3]] == [
        ("seg", "rtstruct", "preview"),
        ("rtstruct", "preview"),
        (),
    ]
    assert len({form.sop_instance_uid for form in forms}) == len(forms)
    assert len({form.series_uid for form in forms}) == len(forms)
    for form in forms:
        dataset = read(form)
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.SOPClassUID == form.sop_class_uid
        assert dataset.SOPInstanceUID == form.sop_instance_uid
        assert dataset.SeriesInstanceUID == form.series_uid
        assert dataset.PatientID
        assert dataset.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_every_form_has_the_same_measurements(made: tuple[ResultInstance, ...]) -> None:
    datasets = [read(form) for form in forms_of(made)]
    segments = read(made[0]).SegmentSequence
    for dataset in datasets:
        assert [numbers(group) for group in groups(dataset)] == [
            numbers(group) for group in groups(datasets[0])
        ]
        tracked = [item.UID for item in items(dataset) if item.get("ValueType") == "UIDREF"]
        assert {segment.TrackingUID for segment in segments} <= set(tracked)
        assert "not for diagnosis" in comments(dataset)[0]


def test_a_form_names_what_it_refers_to_and_nothing_else(
    made: tuple[ResultInstance, ...],
) -> None:
    by_kind = {item.kind: item for item in made if item.kind != "sr"}
    scan = scan_of()
    for form in forms_of(made):
        dataset = read(form)
        named = evidence(dataset)
        others = {by_kind[kind].sop_instance_uid for kind in form.refers_to}
        assert set(named) == {*scan.sop_instance_uids, *others}
        for kind in form.refers_to:
            item = by_kind[kind]
            assert named[item.sop_instance_uid] == (item.sop_class_uid, item.series_uid)
        tree = referred(dataset)
        assert tree <= set(named)
        templates = {
            item.ContentTemplateSequence[0].TemplateIdentifier
            for item in items(dataset)
            if "ContentTemplateSequence" in item
        }
        assert templates == {"1411" if "seg" in form.refers_to else "1501"}
        for kind in ("seg", "preview"):
            there = by_kind[kind].sop_instance_uid in tree
            assert there == (kind in form.refers_to)


def test_without_a_segmentation_groups_refer_to_a_slice_that_shows_the_structure(
    made: tuple[ResultInstance, ...],
) -> None:
    bare = read(forms_of(made)[-1])
    scan = scan_of()
    labels = labels_of(scan).labels
    for label, group in zip((2, 5), groups(bare), strict=True):
        (image,) = [item for item in group if item.ValueType == "IMAGE"]
        assert image.ConceptNameCodeSequence[0].CodeMeaning == "Source of Measurement"
        uid = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert (labels[scan.sop_instance_uids.index(uid)] == label).any()
    assert any("names no segmentation" in sentence for sentence in comments(bare))


def test_the_structures_and_the_comments_are_those_of_their_group(
    made: tuple[ResultInstance, ...],
) -> None:
    for form in forms_of(made)[::3]:
        kidney, liver = groups(read(form))
        for group, finding in ((kidney, "Kidney"), (liver, "Liver")):
            said = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group}
            assert said["Finding"].ConceptCodeSequence[0].CodeMeaning == finding
        assert "cut by the field of view" not in kidney[-1].TextValue
        assert "cut by the field of view" in liver[-1].TextValue


def test_each_group_refers_to_the_part_of_the_segmentation_that_has_its_segment() -> None:
    scan = scan_of()
    labels = labels_of(scan)
    labels.labels[labels.labels == 2] = 92
    model = replace(MODEL, structures={92: "rib_left_1", 5: "liver"})
    objects = ("seg_organs", "seg_bones", "sr")
    measured = (Number(label=5), Number(label=92))
    given = plan(objects=objects, reports=reports([objects]))
    made = encode(prepare(scan), labels, model, measured, given)
    by_kind = {item.kind: item for item in made if item.kind != "sr"}
    assert forms_of(made)[0].refers_to == ("seg_organs", "seg_bones")
    assert forms_of(made)[-1].refers_to == ()
    pointed = []
    for group in groups(read(forms_of(made)[0])):
        found = {item.ConceptNameCodeSequence[0].CodeMeaning: item for item in group}
        reference = found["Referenced Segment"].ReferencedSOPSequence[0]
        (part,) = (
            item
            for item in by_kind.values()
            if item.sop_instance_uid == reference.ReferencedSOPInstanceUID
        )
        segment = read(part).SegmentSequence[reference.ReferencedSegmentNumber - 1]
        assert segment.TrackingUID == found["Tracking Unique Identifier"].UID
        pointed.append(part.kind)
    assert pointed == ["seg_organs", "seg_bones"]


def test_nothing_found_leaves_out_what_was_not_made_and_gives_each_form_once() -> None:
    scan = scan_of()
    profiles = [("seg", "preview", "sr"), ("seg", "sr")]
    made = results(scan, empty(scan), given=plan(objects=profiles[0], reports=reports(profiles)))
    assert [item.kind for item in made] == ["preview"] + ["sr"] * 6
    assert [form.refers_to for form in forms_of(made)[::3]] == [("preview",), ()]
    for form in forms_of(made):
        assert any("found none" in sentence for sentence in comments(read(form)))
        assert groups(read(form)) == []


def test_a_label_map_is_named_in_the_evidence_and_not_in_the_tree() -> None:
    made = reports_of_label_map()
    assert len(made) == len(REPORT_CLASSES)
    for item in made:
        dataset = read(item)
        assert evidence(dataset)["1.2.3.4"] == (LABEL_MAP_STORAGE, "1.2.3.5")
        assert "1.2.3.4" not in referred(dataset)
        assert any("Tracking Unique Identifier" in sentence for sentence in comments(dataset))


def test_every_form_replaces_every_earlier_one() -> None:
    earlier = tuple(
        Predecessor(
            study_uid="1.2.3",
            series_uid=f"1.2.4.{number}",
            sop_class_uid=sop_class,
            sop_instance_uid=f"1.2.5.{number}",
        )
        for number, sop_class in enumerate(REPORT_CLASSES[:2])
    )
    given = plan(predecessors=earlier, reports=reports([("seg", "sr")]))
    for form in forms_of(results(given=given)):
        (study,) = read(form).PredecessorDocumentsSequence
        found = [
            (series.SeriesInstanceUID, reference.ReferencedSOPInstanceUID)
            for series in study.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        ]
        assert found == [("1.2.4.0", "1.2.5.0"), ("1.2.4.1", "1.2.5.1")]
    first = results(given=plan(reports=reports([("seg", "sr")])))
    uids = {item.sop_instance_uid for item in (*first, *results(given=given))}
    assert len(uids) == 2 * len(first)


def test_the_forms_are_the_same_bytes_every_time() -> None:
    given = plan(objects=EVERYTHING, reports=reports([EVERYTHING]))
    first, again = results(given=given), results(scan_of(), given=given)
    assert [item.data for item in first] == [item.data for item in again]
    alone = results(given=plan(objects=EVERYTHING))
    assert alone[-1].data == forms_of(first)[0].data


def test_text_beyond_ascii_survives() -> None:
    scan = scan_of(extra={"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Ünal^Øyvind"})
    for form in forms_of(results(scan, findings=("Größe unbekannt.",))):
        dataset = read(form)
        assert dataset.PatientName == "Ünal^Øyvind"
        assert "Größe unbekannt." in comments(dataset)


def test_104_structures_are_written_within_a_second() -> None:
    """One tree in every SOP Class; of the processor's time, which a busy machine stretches, too."""
    table = load_codes(MODEL.code_table)
    scan = read_scan(write_series(np.full((40, 30, 60), 50, np.int16), AFFINE, SeriesOptions()))
    labels = np.zeros(scan.volume.shape, np.uint8)
    labels.reshape(-1)[:: labels.size // len(table)][: len(table)] = sorted(table)
    label_map = LabelMap(labels=labels, source_digest=scan.digest)
    source = prepare(scan)
    segments = find_segments(source, find_present(label_map), MODEL)
    assert len(segments) == 104
    report = Report(
        segments=segments,
        measurements={label: Number(label=label) for label in table},
        shown_on=dict.fromkeys(table, 0),
        findings=(),
    )
    parts = content_parts(source, label_map, MODEL, plan())
    forms = reports([("sr",)])
    took = []
    for _ in range(2):
        started = time.process_time()
        made = encode_reports(source, report, MODEL, plan(), parts, forms, {})
        took.append(time.process_time() - started)
    assert len(groups(read(made[0]))) == 104
    assert min(took) < 2


DIGESTS = """
import hashlib
from analysis_kit import plan
from results_kit import results
from dicomnode.domain.alternatives import reports
from dicomnode.domain.plans import OBJECTS
made = results(given=plan(objects=OBJECTS, reports=reports([OBJECTS])), findings=("One.", "Two."))
for item in made:
    print(item.kind, item.sop_instance_uid, hashlib.sha256(item.data).hexdigest())
"""


def test_other_processes_with_other_clocks_make_the_same_bytes() -> None:
    """Neither the hashes of texts, nor the time zone, nor the language decide anything."""
    said = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **changes},
        ).stdout.splitlines()
        for changes in (
            {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
            {"PYTHONHASHSEED": "2", "TZ": "America/Lima", "LC_ALL": "C.UTF-8"},
        )
    ]
    assert said[0] == said[1]
    assert {line.split()[0] for line in said[0]} >= {*EVERYTHING, LABELMAP}
    assert len({line.split()[1] for line in said[0]}) == len(said[0])
