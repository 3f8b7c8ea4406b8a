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
from pydicom.tag import Tag

from dicomnode.domain.findings import Finding
from dicomnode.domain.plans import (
    LABELMAP,
    PREVIEW,
    SEG,
    SEG_PARTS,
    Plan,
    ResultInstance,
)
from dicomnode.results.acquisition import acquisition_sentence
from dicomnode.results.common import slices_used
from dicomnode.results.findings import evaluations_of, items_of_the_whole
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.report_items import (
    ENGLISH,
    PROCEDURES,
    QUALITATIVE_EVALUATIONS,
    comment,
    container,
    group_comment,
    library,
    measurements_of,
    observer,
    segment_of,
    what_it_is,
)
from dicomnode.results.seg import AI_FAMILY, Segment, of_system

DISCLAIMER = (
    "This report was made by an artificial intelligence without review by a person. "
    "It is not for diagnosis or treatment."
)
NOTHING_FOUND = "The model found none of its structures in these images; there is no segmentation."
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
        self._model = model
        self._plan = plan
        term = source.headers[0].get("SpecificCharacterSet")
        self._encodings = convert_encodings(term or default_encoding)
        self._head = self._encoded(
            (
                *sr.LanguageOfContentItemAndDescendants(ENGLISH),
                *observer(model, plan),
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
        comments = {cut: self._encoded([group_comment(source, cut)]) for cut in (False, True)}
        self._groups: list[tuple[Segment, Encoded, Encoded]] = []
        for segment in report.segments:
            measured = report.measurements[segment.label]
            before = self._encoded(what_it_is(segment)) + algorithm
            before += self._encoded(measurements_of(measured, source.scan.modality))
            name = model.structures.get(segment.label, segment.codes.name)
            before += self._encoded(evaluations_of(name, report.coded))
            self._groups.append((segment, before, comments[measured.touches_border]))
        self._measured: dict[tuple[str, ...], Encoded] = {}

    def naming(self, named: Mapping[str, ResultInstance]) -> Encoded:
        """Return the items of the report that refers to these results, by kind."""
        said = container(QUALITATIVE_EVALUATIONS)
        said.ContentSequence.extend(comment(sentence) for sentence in self._sentences(named))
        said.ContentSequence.extend(items_of_the_whole(self._report.coded))
        binary = tuple(kind for kind in (SEG, *SEG_PARTS) if kind in named)
        if binary not in self._measured:
            self._measured[binary] = self._measurement_groups([named[kind] for kind in binary])
        images = self._encoded([library(self._source, named.get(PREVIEW))])
        return b"".join((self._head, images, self._measured[binary], self._encoded([said])))

    def _measurement_groups(self, segmentations: Sequence[ResultInstance]) -> Encoded:
        if not self._groups:
            return b""
        found = {
            segment.label: (segment.number, seg)
            for seg in reversed(segmentations)  # the whole one before its parts
            for segment in self._segments_of(seg.kind)
        }
        groups = b""
        for segment, before, after in self._groups:
            there = found.get(segment.label)
            pointing = self._encoded(
                segment_of(*there, self._source) if there else [self._image(segment)]
            )
            group = container(codes.DCM.MeasurementGroup, "1411" if there else "1501")
            groups += self._holding(group, before, pointing, after)
        return self._holding(container(codes.DCM.ImagingMeasurements), groups)

    def _segments_of(self, kind: str) -> Sequence[Segment]:
        """Return the segments of a BINARY Segmentation, with their numbers in it."""
        segments = self._report.segments
        return of_system(segments, self._model, SEG_PARTS[kind]) if kind in SEG_PARTS else segments

    def _image(self, segment: Segment) -> Dataset:
        """Return the reference to a slice that shows the structure."""
        image = self._source.scan.sources[self._report.shown_on[segment.label]]
        frame = image.frame_number
        return sr.SourceImageForMeasurementGroup(
            referenced_sop_class_uid=image.sop_class_uid,
            referenced_sop_instance_uid=image.sop_instance_uid,
            referenced_frame_numbers=None if frame is None else [frame],
        )

    def _holding(self, parent: Dataset, *children: Encoded) -> Encoded:
        return self._encoded([hold(parent, b"".join(children))])

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
        elif not {SEG, *SEG_PARTS} & set(named):
            yield BY_TRACKING if LABELMAP in named else WITHOUT_SEGMENTATION
        used, total = slices_used(self._source, self._plan)
        if used < total:
            yield f"Only {used} of the {total} instances of the series were analysed."
        yield acquisition_sentence(self._source)
        yield from self._report.findings


def hold(parent: Dataset, children: Encoded) -> Dataset:
    """Put encoded items into a container, or into the document itself; return it."""
    parent[_CONTENT] = RawDataElement(_CONTENT, "SQ", len(children), children, 0, False, True)
    # So that pydicom takes them over as they are.
    term = parent.get("SpecificCharacterSet")
    parent.set_original_encoding(False, True, convert_encodings(term) if term else default_encoding)
    return parent


def _settle(item: Dataset) -> None:
    """Say that no representation is ambiguous: looking for one takes as long as writing."""
    item.set_original_encoding(False, True, default_encoding)
    for element in item.values():
        if element.VR == "SQ" and not isinstance(element, RawDataElement):
            for below in element.value:
                _settle(below)
