"""The content items of a report, made by highdicom: which codes, which values, which references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from dicomnode.domain.plans import MANUFACTURER, Plan, ResultInstance
from dicomnode.results.acquisition import acquisition_sentence
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.seg import Segment, concept
from dicomnode.results.uids import device_uid
from dicomnode.scan import Modality

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
MEDIAN = Code("373099004", "SCT", "Median")
COMMENT = Code("121106", "DCM", "Comment")
FINDING_CATEGORY = Code("276214006", "SCT", "Finding category")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
ENGLISH = sr.CodedConcept("en", "RFC5646", "English")
CUT = "The structure is cut by the field of view: its volume is not given."


def library(source: Source, preview: ResultInstance | None) -> Dataset:
    """Return the library: the middle slice, which viewers dereference, and the preview.

    All slices would weigh too much. The preview stands in a group of its own: it is no source.
    """
    middle = len(source.headers) // 2
    (library,) = sr.ImageLibrary([source.headers[middle]])
    frame = source.scan.sources[middle].frame_number
    for group in library.ContentSequence:
        for entry in group.ContentSequence:
            if frame is not None and "ReferencedSOPSequence" in entry:
                entry.ReferencedSOPSequence[0].ReferencedFrameNumber = frame
    if preview is not None:
        entry = sr.ImageContentItem(
            name=codes.DCM.Summary,
            referenced_sop_class_uid=preview.sop_class_uid,
            referenced_sop_instance_uid=preview.sop_instance_uid,
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        group = container(codes.DCM.ImageLibraryGroup)
        group.ContentSequence.append(entry)
        library.ContentSequence.append(group)
    return library


def observer(model: Model, plan: Plan) -> sr.ObservationContext:
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


def what_it_is(segment: Segment) -> Iterator[Dataset]:
    yield from sr.TrackingIdentifier(uid=segment.tracking_uid, identifier=segment.tracking_id)
    for name, value in (
        (FINDING_CATEGORY, segment.codes.category),
        (codes.DCM.Finding, segment.codes.type),
    ):
        yield sr.CodeContentItem(
            name=name,
            value=concept(value),
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
    where = segment.codes.region or segment.codes.type
    side = segment.codes.region_modifier if segment.codes.region else segment.codes.type_modifier
    yield sr.FindingSite(
        anatomic_location=concept(where), laterality=concept(side) if side else None
    )


def segment_of(number: int, seg: ResultInstance, source: Source) -> Sequence[Dataset]:
    return sr.ReferencedSegment(
        sop_class_uid=seg.sop_class_uid,
        sop_instance_uid=seg.sop_instance_uid,
        segment_number=number,
        source_series=sr.SourceSeriesForSegmentation(
            referenced_series_instance_uid=str(source.headers[0].SeriesInstanceUID)
        ),
    )


def measurements_of(measured: Measured, modality: Modality) -> Iterator[Dataset]:
    name, unit = INTENSITIES[modality]
    if not measured.touches_border:
        yield from sr.Measurement(name=VOLUME, value=round(measured.volume_ml, 3), unit=MILLILITRE)
    for value, derivation in (
        (measured.mean, MEAN),
        (measured.sd, STANDARD_DEVIATION),
        (measured.median, MEDIAN),
    ):
        if value is not None:
            yield from sr.Measurement(
                name=name, value=round(value, 1), unit=unit, derivation=derivation
            )


def group_comment(source: Source, cut: bool) -> Dataset:
    return comment(" ".join((acquisition_sentence(source), *([CUT] if cut else []))))


def container(name: Code, template_id: str | None = None) -> sr.ContainerContentItem:
    item = sr.ContainerContentItem(
        name=name,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
        template_id=template_id,
    )
    item.ContentSequence = sr.ContentSequence()
    return item


def comment(sentence: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        name=COMMENT, value=sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
