"""Measurements -> Structured Report, TID 1500 Measurement Report (PS3.16), the root of its set.

The report names the images, the segmentation and the pictures of its set in the Current Requested
Procedure Evidence, and in its tree what a tree may name. Its forms differ in SOP Class
(Comprehensive 3D, Comprehensive, Enhanced: one tree is valid in all three) and in what they name:
each has a SOP Instance UID and a series of its own, and a destination gets one of them.

A label map (Label Map Segmentation) is named in the evidence only: the trees of these SOP Classes
refer to images, and dciodvfy and DCMTK know no Label Map Segmentation as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from highdicom import sr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.domain.alternatives import NAMED_BY_REPORTS
from dicomnode.domain.plans import MANUFACTURER, SR, Plan, Predecessor, ReportForm, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.common import (
    MAX_LONG_STRING,
    Times,
    contributing_equipment,
    finish,
    series_description,
    software_versions,
    times,
)
from dicomnode.results.findings import identify_scheme, parts_of
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.references import distinct
from dicomnode.results.report_content import Content, Report, hold
from dicomnode.results.uids import identify

__all__ = ["Report", "encode_reports", "forms_that_can_be"]


def forms_that_can_be(
    forms: Sequence[ReportForm], made: Mapping[str, ResultInstance]
) -> list[ReportForm]:
    """Return the forms once each, without what was not made: where nothing is found, no SEG is."""
    kept = (
        ReportForm(
            sop_class_uid=form.sop_class_uid,
            refers_to=tuple(kind for kind in form.refers_to if kind in made),
        )
        for form in forms
    )
    return list(dict.fromkeys(kept))


def encode_reports(
    source: Source,
    report: Report,
    model: Model,
    plan: Plan,
    parts: tuple[str, ...],
    forms: Sequence[ReportForm],
    made: Mapping[str, ResultInstance],
) -> tuple[ResultInstance, ...]:
    """Return the report in each of its forms.

    Args:
        parts: all that decides the content, but for what is said here (`uids.content_parts`).
        forms: not empty; each names only what is in `made`.
        made: the other results of the set, by kind.
    """
    moment = times(source, plan)
    with quiet_pydicom():
        content = Content(source, report, model, plan)
        common = _document(source, model, plan, moment)
        if report.coded:
            identify_scheme(common)
        return tuple(
            _encode(form, common, content, source, report, plan, parts, made, moment)
            for form in forms
        )


def _encode(
    form: ReportForm,
    common: Dataset,
    content: Content,
    source: Source,
    report: Report,
    plan: Plan,
    parts: tuple[str, ...],
    made: Mapping[str, ResultInstance],
    moment: Times,
) -> ResultInstance:
    named = {kind: made[kind] for kind in NAMED_BY_REPORTS if kind in form.refers_to}
    uids = (item.sop_instance_uid for item in named.values())
    identifiers = identify(
        SR,
        form.sop_class_uid,
        (*parts, *report.findings, *parts_of(report.coded), form.sop_class_uid, *uids),
        plan,
        str(source.headers[0].SeriesInstanceUID),
    )
    dataset = Dataset()
    dataset.update(common)
    # New elements: the others are those of every form.
    dataset.add_new("SOPClassUID", "UI", form.sop_class_uid)
    dataset.add_new("SOPInstanceUID", "UI", identifiers.sop_instance_uid)
    dataset.add_new("SeriesInstanceUID", "UI", identifiers.series_uid)
    dataset.add_new("SeriesNumber", "IS", identifiers.series_number)
    (evidence,) = common.CurrentRequestedProcedureEvidenceSequence
    study = Dataset()
    study.StudyInstanceUID = evidence.StudyInstanceUID
    study.ReferencedSeriesSequence = [
        *evidence.ReferencedSeriesSequence,
        *(_series_of(item) for item in named.values()),
    ]
    dataset.add_new("CurrentRequestedProcedureEvidenceSequence", "SQ", [study])
    hold(dataset, content.naming(named))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return finish(
        dataset,
        source,
        identifiers,
        moment,
        kind=SR,
        summary={"measurement_groups": len(report.segments)},
        refers_to=tuple(named),
    )


def _document(source: Source, model: Model, plan: Plan, moment: Times) -> Dataset:
    """Return what all forms have in common, by highdicom; its tree is a root without items."""
    root = sr.ContainerContentItem(
        name=sr.CodedConcept("126000", "DCM", "Imaging Measurement Report"), template_id="1500"
    )
    root.ContentSequence = sr.ContentSequence()
    middle = source.headers[len(source.headers) // 2]
    return sr.Comprehensive3DSR(
        evidence=distinct([middle, *source.headers]),
        content=root,
        # Of the form, in place of these:
        series_instance_uid=str(middle.SeriesInstanceUID),
        series_number=1,
        sop_instance_uid=str(middle.SOPInstanceUID),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        requested_procedures=_requests(source),
        previous_versions=_previous(plan.predecessors),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing_equipment(model, plan, moment)],
        series_description=series_description(SR, source, model, plan),
        manufacturer_model_name=model.id[:MAX_LONG_STRING],
        software_versions=software_versions(model),
        device_serial_number=model.weights_digest[:16],
        content_date=moment.date,
        content_time=moment.time,
        series_date=moment.date,
        series_time=moment.time,
    )


def _series_of(result: ResultInstance) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = result.sop_class_uid
    reference.ReferencedSOPInstanceUID = result.sop_instance_uid
    series = Dataset()
    series.SeriesInstanceUID = result.series_uid
    series.ReferencedSOPSequence = [reference]
    return series


def _previous(predecessors: Sequence[Predecessor]) -> Sequence[Dataset] | None:
    items = []
    for predecessor in predecessors:
        previous = Dataset()
        previous.StudyInstanceUID = predecessor.study_uid
        previous.SeriesInstanceUID = predecessor.series_uid
        previous.SOPClassUID = predecessor.sop_class_uid
        previous.SOPInstanceUID = predecessor.sop_instance_uid
        items.append(previous)
    return items or None


def _requests(source: Source) -> Sequence[Dataset] | None:
    """Return Referenced Request items (PS3.3 C.17.2) for the requests the source names."""
    items = []
    for request in source.requests:
        item = Dataset()
        item.StudyInstanceUID = source.headers[0].StudyInstanceUID
        item.ReferencedStudySequence = []
        item.AccessionNumber = request.get("AccessionNumber") or source.headers[0].AccessionNumber
        item.PlacerOrderNumberImagingServiceRequest = ""
        item.FillerOrderNumberImagingServiceRequest = ""
        item.RequestedProcedureID = request.get("RequestedProcedureID") or ""
        item.RequestedProcedureDescription = request.get("RequestedProcedureDescription") or ""
        item.RequestedProcedureCodeSequence = request.get("RequestedProcedureCodeSequence") or []
        items.append(item)
    return items or None
