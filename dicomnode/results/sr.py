"""Measurements -> Comprehensive 3D SR, TID 1500 Measurement Report (PS3.16).

One TID 1411 group a segment: volume, mean and standard deviation of its Hounsfield values (of MR:
of its signal), and what they were measured on. A structure that the field of view cuts has no
volume. A scan in which nothing was found has a report without groups that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicomnode.domain.plans import MANUFACTURER, SR, Plan, Predecessor, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.acquisition import acquisition_sentence
from dicomnode.results.common import (
    MAX_LONG_STRING,
    contributing_equipment,
    finish,
    series_description,
    slices_used,
    software_versions,
    times,
)
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.references import distinct
from dicomnode.results.seg import AI_FAMILY, Segment, concept
from dicomnode.results.seg import SOP_CLASS_UID as SEG_SOP_CLASS_UID
from dicomnode.results.uids import Identifiers, device_uid
from dicomnode.scan import Modality

SOP_CLASS_UID = str(Comprehensive3DSRStorage)
PROCEDURES: Mapping[Modality, Code] = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
}
VOLUME = Code("118565006", "SCT", "Volume")
MILLILITRE = Code("mL", "UCUM", "mL")
INTENSITIES: Mapping[Modality, tuple[Code, Code]] = {
    "CT": (
        Code("112031", "DCM", "Attenuation Coefficient"),
        Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
    ),
    "MR": (Code("110852", "DCM", "MR signal intensity"), Code("1", "UCUM", "no units")),
}
"""What is measured, and its unit (CID 7469, CID 7181)."""
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
COMMENT = Code("121106", "DCM", "Comment")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
ENGLISH = sr.CodedConcept("en", "RFC5646", "English")
DISCLAIMER = (
    "This report was made by an artificial intelligence without review by a person. "
    "It is not for diagnosis or treatment."
)
NOTHING_FOUND = "The model found none of its structures in these images; there is no segmentation."
CUT = "The structure is cut by the field of view: its volume is not given."


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report tells, beside the source, the model and the plan."""

    segments: tuple[Segment, ...]
    measurements: Mapping[int, Measured]
    """By label."""
    findings: tuple[str, ...]
    """Sentences on the source, e.g. what was left out."""
    seg_uid: str | None
    """SOP Instance UID of the Segmentation; None where nothing was found."""
    seg_series_uid: str | None


def encode_sr(
    source: Source, report: Report, model: Model, plan: Plan, identifiers: Identifiers
) -> ResultInstance:
    """Return the report; it refers to the Segmentation and to one image of the source."""
    moment = times(source, plan)
    with quiet_pydicom():
        content = _content(source, report, model, plan)
        middle = source.headers[len(source.headers) // 2]
        evidence = distinct([middle, *source.headers])
        dataset = sr.Comprehensive3DSR(
            evidence=[*evidence, *_segmentation(source, report)],
            content=content,
            series_instance_uid=identifiers.series_uid,
            series_number=identifiers.series_number,
            sop_instance_uid=identifiers.sop_instance_uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            is_final=False,
            is_verified=False,
            requested_procedures=_requests(source),
            previous_versions=_previous(plan.predecessor),
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
    return finish(
        dataset,
        source,
        identifiers,
        moment,
        kind=SR,
        summary={"measurement_groups": len(report.segments)},
    )


def _content(source: Source, report: Report, model: Model, plan: Plan) -> sr.ContainerContentItem:
    """Return the tree. highdicom's MeasurementReport has no place for a report without groups."""
    root = sr.ContainerContentItem(name=codes.cid7021.ImagingMeasurementReport, template_id="1500")
    root.ContentSequence = sr.ContentSequence()
    items = root.ContentSequence
    items.extend(sr.LanguageOfContentItemAndDescendants(ENGLISH))
    items.extend(_observer(model, plan))
    items.append(
        sr.CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=PROCEDURES[source.scan.modality],
            relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
        )
    )
    items.extend(_image_library(source))
    if report.segments:
        measured = _container(codes.DCM.ImagingMeasurements)
        for segment in report.segments:
            measured.ContentSequence.extend(_group(segment, source, report, model))
        items.append(measured)
    said = _container(QUALITATIVE_EVALUATIONS)
    for sentence in _sentences(source, report, plan):
        said.ContentSequence.append(_comment(sentence))
    items.append(said)
    return root


def _image_library(source: Source) -> sr.ImageLibrary:
    """Return the library of the middle slice: viewers dereference it, all would weigh too much."""
    middle = len(source.headers) // 2
    library = sr.ImageLibrary([source.headers[middle]])
    frame = source.scan.sources[middle].frame_number
    for group in library[0].ContentSequence:
        for entry in group.ContentSequence:
            if frame is not None and "ReferencedSOPSequence" in entry:
                entry.ReferencedSOPSequence[0].ReferencedFrameNumber = frame
    return library


def _sentences(source: Source, report: Report, plan: Plan) -> Iterator[str]:
    yield DISCLAIMER
    if not report.segments:
        yield NOTHING_FOUND
    used, total = slices_used(source, plan)
    if used < total:
        yield f"Only {used} of the {total} instances of the series were analysed."
    yield acquisition_sentence(source)
    yield from report.findings


def _observer(model: Model, plan: Plan) -> sr.ObservationContext:
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=codes.DCM.Device,
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=device_uid(model),
                name=plan.station_name,
                manufacturer_name=MANUFACTURER,
                model_name=model.id,
            ),
        )
    )


def _group(
    segment: Segment, source: Source, report: Report, model: Model
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    if report.seg_uid is None:
        raise ValueError("a report with segments refers to a Segmentation")
    measured = report.measurements[segment.label]
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=segment.tracking_uid, identifier=segment.tracking_id
        ),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=SEG_SOP_CLASS_UID,
            sop_instance_uid=report.seg_uid,
            segment_number=segment.number,
            source_series=sr.SourceSeriesForSegmentation(
                referenced_series_instance_uid=str(source.headers[0].SeriesInstanceUID)
            ),
        ),
        finding_category=concept(segment.codes.category),
        finding_type=concept(segment.codes.type),
        finding_sites=[_site(segment)],
        algorithm_id=sr.AlgorithmIdentification(
            name=model.title, version=model.version, family=AI_FAMILY
        ),
        measurements=list(_measurements(measured, source.scan.modality)),
    )
    remarks = [acquisition_sentence(source), *([CUT] if measured.touches_border else [])]
    group[0].ContentSequence.append(_comment(" ".join(remarks)))
    return group


def _site(segment: Segment) -> sr.FindingSite:
    where = segment.codes.region or segment.codes.type
    side = segment.codes.region_modifier if segment.codes.region else segment.codes.type_modifier
    return sr.FindingSite(
        anatomic_location=concept(where), laterality=concept(side) if side else None
    )


def _measurements(measured: Measured, modality: Modality) -> Iterator[sr.Measurement]:
    name, unit = INTENSITIES[modality]
    if not measured.touches_border:
        yield sr.Measurement(name=VOLUME, value=round(measured.volume_ml, 3), unit=MILLILITRE)
    for value, derivation in ((measured.mean, MEAN), (measured.sd, STANDARD_DEVIATION)):
        if value is not None:
            yield sr.Measurement(name=name, value=round(value, 1), unit=unit, derivation=derivation)


def _container(name: Code) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(
        name=name, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = sr.ContentSequence()
    return container


def _comment(sentence: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        name=COMMENT, value=sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )


def _segmentation(source: Source, report: Report) -> Sequence[Dataset]:
    """Return what the evidence needs to know of the Segmentation."""
    if report.seg_uid is None:
        return ()
    reference = Dataset()
    reference.SOPClassUID = SEG_SOP_CLASS_UID
    reference.SOPInstanceUID = report.seg_uid
    reference.SeriesInstanceUID = report.seg_series_uid
    reference.StudyInstanceUID = source.headers[0].StudyInstanceUID
    return (reference,)


def _previous(predecessor: Predecessor | None) -> Sequence[Dataset] | None:
    if predecessor is None:
        return None
    previous = Dataset()
    previous.StudyInstanceUID = predecessor.study_uid
    previous.SeriesInstanceUID = predecessor.series_uid
    previous.SOPClassUID = predecessor.sop_class_uid
    previous.SOPInstanceUID = predecessor.sop_instance_uid
    return [previous]


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
