"""What a TID 1500 Measurement Report says (PS3.16), as encoded items of its Content Sequence.

One Measurement Group a structure: volume, mean, standard deviation and median of its Hounsfield
values (of MR: of its signal), and what they were measured on. A group refers to its segment
(TID 1411) where the report names a BINARY Segmentation, and to an image of the source (TID 1501)
where it does not. A structure that the field of view cuts has no volume.

Forms of one report differ in references alone. So each item is encoded once, and the forms are put
together of bytes: with 104 groups, pydicom takes longer to write a report than all else together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from highdicom import sr
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_sequence_item
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from dicomnode.domain.findings import Finding
from dicomnode.domain.plans import LABELMAP, MANUFACTURER, PREVIEW, SEG, Plan, ResultInstance
from dicomnode.results.acquisition import acquisition_sentence
from dicomnode.results.common import slices_used
from dicomnode.results.findings import evaluations_of, items_of_the_whole
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.seg import AI_FAMILY, Segment, concept
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
DISCLAIMER = (
    "This report was made by an artificial intelligence without review by a person. "
    "It is not for diagnosis or treatment."
)
NOTHING_FOUND = "The model found none of its structures in these images; there is no segmentation."
CUT = "The structure is cut by the field of view: its volume is not given."
BY_TRACKING = (
    "The groups refer to the source alone; a segment of the segmentation that this report names "
    "has the Tracking Unique Identifier of its group."
)
WITHOUT_SEGMENTATION = "The groups refer to the source alone: this report names no segmentation."
_CONTENT = Tag("ContentSequence")
Encoded = bytes
"""Items of a sequence, in Explicit VR Little Endian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the report tells, beside the source, the model and the plan."""

    segments: tuple[Segment, ...]
    measurements: Mapping[int, Measured]
    """By label."""
    shown_on: Mapping[int, int]
    """By label, the index of the slice in the middle of those that show the structure."""
    findings: tuple[str, ...]
    """Sentences on the source, e.g. what was left out."""
    coded: tuple[Finding, ...] = ()
    """Findings with a code; their sentences are among the findings."""


class Content:
    """The items that the forms of one report have in common."""

    def __init__(self, source: Source, report: Report, model: Model, plan: Plan) -> None:
        self._source = source
        self._report = report
        self._plan = plan
        term = source.headers[0].get("SpecificCharacterSet")
        self._encodings = convert_encodings(term or default_encoding)
        self._head = self._encoded(
            (
                *sr.LanguageOfContentItemAndDescendants(ENGLISH),
                *_observer(model, plan),
                sr.CodeContentItem(
                    name=codes.DCM.ProcedureReported,
                    value=PROCEDURES[source.scan.modality],
                    relationship_type=sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
                ),
            )
        )
        algorithm = self._encoded(
            sr.AlgorithmIdentification(name=model.title, version=model.version, family=AI_FAMILY)
        )
        comments = {cut: self._encoded([_group_comment(source, cut)]) for cut in (False, True)}
        self._groups: list[tuple[Segment, Encoded, Encoded]] = []
        for segment in report.segments:
            measured = report.measurements[segment.label]
            before = self._encoded(_what(segment)) + algorithm
            before += self._encoded(_measurements(measured, source.scan.modality))
            name = model.structures.get(segment.label, segment.codes.name)
            before += self._encoded(evaluations_of(name, report.coded))
            self._groups.append((segment, before, comments[measured.touches_border]))
        self._measured: dict[str | None, Encoded] = {}

    def naming(self, named: Mapping[str, ResultInstance]) -> Encoded:
        """Return the items of the report that refers to these results, by kind."""
        said = _container(QUALITATIVE_EVALUATIONS)
        said.ContentSequence.extend(_comment(sentence) for sentence in self._sentences(named))
        said.ContentSequence.extend(items_of_the_whole(self._report.coded))
        seg = named.get(SEG)
        uid = seg.sop_instance_uid if seg else None
        if uid not in self._measured:
            self._measured[uid] = self._measurement_groups(seg)
        library = [_library(self._source, named.get(PREVIEW))]
        return b"".join(
            (self._head, self._encoded(library), self._measured[uid], self._encoded([said]))
        )

    def _measurement_groups(self, seg: ResultInstance | None) -> Encoded:
        if not self._groups:
            return b""
        groups = b""
        for segment, before, after in self._groups:
            reference = _segment(segment, seg, self._source) if seg else None
            pointing = self._encoded(reference or [self._image(segment)])
            group = _container(codes.DCM.MeasurementGroup, "1411" if reference else "1501")
            groups += self._holding(group, before, pointing, after)
        return self._holding(_container(codes.DCM.ImagingMeasurements), groups)

    def _image(self, segment: Segment) -> Dataset:
        """Return the reference to a slice that shows the structure."""
        image = self._source.scan.sources[self._report.shown_on[segment.label]]
        frame = image.frame_number
        return sr.SourceImageForMeasurementGroup(
            referenced_sop_class_uid=image.sop_class_uid,
            referenced_sop_instance_uid=image.sop_instance_uid,
            referenced_frame_numbers=None if frame is None else [frame],
        )

    def _holding(self, container: Dataset, *children: Encoded) -> Encoded:
        return self._encoded([hold(container, b"".join(children))])

    def _encoded(self, items: Iterable[Dataset]) -> Encoded:
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        for item in items:
            _settle(item)
            write_sequence_item(buffer, item, self._encodings)
        return buffer.getvalue()

    def _sentences(self, named: Mapping[str, ResultInstance]) -> Iterator[str]:
        yield DISCLAIMER
        if not self._report.segments:
            yield NOTHING_FOUND
        elif SEG not in named:
            yield BY_TRACKING if LABELMAP in named else WITHOUT_SEGMENTATION
        used, total = slices_used(self._source, self._plan)
        if used < total:
            yield f"Only {used} of the {total} instances of the series were analysed."
        yield acquisition_sentence(self._source)
        yield from self._report.findings


def hold(container: Dataset, children: Encoded) -> Dataset:
    """Put encoded items into a container, or into the document itself; return it."""
    container[_CONTENT] = RawDataElement(_CONTENT, "SQ", len(children), children, 0, False, True)
    # So that pydicom takes them over as they are.
    term = container.get("SpecificCharacterSet")
    container.set_original_encoding(
        False, True, convert_encodings(term) if term else default_encoding
    )
    return container


def _settle(item: Dataset) -> None:
    """Say that no representation is ambiguous: looking for one takes as long as writing."""
    item.set_original_encoding(False, True, default_encoding)
    for element in item.values():
        if element.VR == "SQ" and not isinstance(element, RawDataElement):
            for below in element.value:
                _settle(below)


def _library(source: Source, preview: ResultInstance | None) -> Dataset:
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
        group = _container(codes.DCM.ImageLibraryGroup)
        group.ContentSequence.append(entry)
        library.ContentSequence.append(group)
    return library


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


def _what(segment: Segment) -> Iterator[Dataset]:
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


def _segment(segment: Segment, seg: ResultInstance, source: Source) -> Sequence[Dataset]:
    return sr.ReferencedSegment(
        sop_class_uid=seg.sop_class_uid,
        sop_instance_uid=seg.sop_instance_uid,
        segment_number=segment.number,
        source_series=sr.SourceSeriesForSegmentation(
            referenced_series_instance_uid=str(source.headers[0].SeriesInstanceUID)
        ),
    )


def _measurements(measured: Measured, modality: Modality) -> Iterator[Dataset]:
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


def _group_comment(source: Source, cut: bool) -> Dataset:
    return _comment(" ".join((acquisition_sentence(source), *([CUT] if cut else []))))


def _container(name: Code, template_id: str | None = None) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(
        name=name,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
        template_id=template_id,
    )
    container.ContentSequence = sr.ContentSequence()
    return container


def _comment(sentence: str) -> sr.TextContentItem:
    return sr.TextContentItem(
        name=COMMENT, value=sentence, relationship_type=sr.RelationshipTypeValues.CONTAINS
    )
