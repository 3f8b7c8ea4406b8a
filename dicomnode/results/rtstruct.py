"""Label map -> RT Structure Set (PS3.3 A.19), for planning systems, Horos and OsiriX.

Every structure is an ROI of closed planar contours, one or several on each slice that it is on, in
the patient's coordinates by the position of each slice: right for tilted, oblique and uneven
stacks. Implicit VR Little Endian: Explicit VR has no room for contours of 64 KiB and more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from dicomnode.domain.plans import RTSTRUCT, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.common import MAX_LONG_STRING, NOT_FOR_DIAGNOSIS, finish, times
from dicomnode.results.contours import Points, slice_contours
from dicomnode.results.headers import Source
from dicomnode.results.model import Measured, Model
from dicomnode.results.objects import begin
from dicomnode.results.seg import Segment, concept
from dicomnode.results.uids import Identifiers
from dicomnode.scan import LabelMap, Scan, SliceSource

SOP_CLASS_UID = str(RTStructureSetStorage)
STUDY_CLASS_UID = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, retired; what the RT Referenced Study Sequence still names."""
DESCRIPTION = "AI result, not verified, not for diagnosis, not for treatment."
_CONTOUR_DATA = Tag("ContourData")
_DECIMALS = 3


def encode_rtstruct(
    source: Source,
    labels: LabelMap,
    segments: Sequence[Segment],
    measurements: Sequence[Measured],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the Structure Set of `segments` (at least one); ROI Numbers are Segment Numbers."""
    moment = times(source, plan)
    with quiet_pydicom():
        dataset = begin(RTSTRUCT, SOP_CLASS_UID, "RTSTRUCT", source, model, plan, identifiers)
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.OperatorsName = ""
        dataset.StructureSetLabel = "AI NOT VERIFIED"
        dataset.StructureSetName = f"{NOT_FOR_DIAGNOSIS}: {model.title}"[:MAX_LONG_STRING]
        dataset.StructureSetDescription = DESCRIPTION
        dataset.StructureSetDate, dataset.StructureSetTime = moment.date, moment.time
        dataset.ApprovalStatus = "UNAPPROVED"
        dataset.FrameOfReferenceUID = source.headers[0].FrameOfReferenceUID
        dataset.PositionReferenceIndicator = source.headers[0].PositionReferenceIndicator
        dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
        volumes = {item.label: item for item in measurements}
        dataset.StructureSetROISequence = [
            _roi(segment, volumes.get(segment.label), source, model) for segment in segments
        ]
        contours, count = _contours(source.scan, labels, segments)
        dataset.ROIContourSequence = contours
        dataset.RTROIObservationsSequence = [_observation(segment) for segment in segments]
    return finish(
        dataset,
        source,
        identifiers,
        moment,
        kind=RTSTRUCT,
        summary={"structures": len(segments), "contours": count},
    )


def _frame_of_reference(source: Source) -> Dataset:
    """Return the item that names every image, by Frame of Reference, study and series."""
    series = Dataset()
    series.SeriesInstanceUID = source.headers[0].SeriesInstanceUID
    items: dict[str, Dataset] = {}
    for image in source.scan.sources:
        items.setdefault(image.sop_instance_uid, _image(image, frame=False))
    series.ContourImageSequence = list(items.values())
    study = Dataset()
    study.ReferencedSOPClassUID = STUDY_CLASS_UID
    study.ReferencedSOPInstanceUID = source.headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    item = Dataset()
    item.FrameOfReferenceUID = source.headers[0].FrameOfReferenceUID
    item.RTReferencedStudySequence = [study]
    return item


def _image(image: SliceSource, *, frame: bool) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.sop_class_uid
    item.ReferencedSOPInstanceUID = image.sop_instance_uid
    if frame and image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    return item


def _roi(segment: Segment, measured: Measured | None, source: Source, model: Model) -> Dataset:
    item = Dataset()
    item.ROINumber = segment.number
    item.ReferencedFrameOfReferenceUID = source.headers[0].FrameOfReferenceUID
    item.ROIName = segment.codes.segment_label[:MAX_LONG_STRING]
    name = model.structures.get(segment.label, segment.codes.name)
    item.ROIDescription = f"{model.id} label {segment.label}: {name}"
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"{model.title} {model.version}"[:MAX_LONG_STRING]
    # A structure that the field of view cuts has no volume.
    if measured is not None and not measured.touches_border:
        item.ROIVolume = f"{measured.volume_ml:.3f}"
    return item


def _observation(segment: Segment) -> Dataset:
    codes = segment.codes
    item = Dataset()
    item.ObservationNumber = segment.number
    item.ReferencedROINumber = segment.number
    kind = concept(codes.type)
    if codes.type_modifier:
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(codes.type_modifier)]
    item.RTROIIdentificationCodeSequence = [kind]
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = ""
    item.ROIObservationDescription = DESCRIPTION
    return item


def _contours(
    scan: Scan, labels: LabelMap, segments: Sequence[Segment]
) -> tuple[list[Dataset], int]:
    """Return the items of the ROI Contour Sequence in the order of `segments`, and a count."""
    found: dict[int, list[Dataset]] = {segment.label: [] for segment in segments}
    for index, image in enumerate(labels.labels):
        reference = [_image(scan.sources[index], frame=True)]
        for label, contours in slice_contours(image):
            for points in contours:
                item = Dataset()
                item.ContourImageSequence = reference
                item.ContourGeometricType = "CLOSED_PLANAR"
                item.NumberOfContourPoints = len(points)
                _add_points(item, _placed(points, scan, index))
                found[label].append(item)
    items = []
    for segment in segments:
        item = Dataset()
        red_green_blue = CIELabColor.from_dicom_value(segment.codes.cielab).to_rgb()
        item.ROIDisplayColor = [int(value) for value in red_green_blue]
        item.ReferencedROINumber = segment.number
        item.ContourSequence = found[segment.label]
        items.append(item)
    return items, sum(map(len, found.values()))


def _placed(points: Points, scan: Scan, index: int) -> NDArray[np.float64]:
    """Return LPS mm [n, 3] of rows and columns [n, 2] on a slice."""
    placed: NDArray[np.float64] = scan.positions[index] + points @ scan.affine[:3, 1:3].T
    return placed


def _add_points(item: Dataset, points: NDArray[np.float64]) -> None:
    """Add Contour Data as the bytes that are written: pydicom takes many times as long for it."""
    numbers = (np.round(points, _DECIMALS) + 0.0).ravel()  # no minus before a zero
    data = "\\".join(map(repr, numbers.tolist())).encode("ascii")
    data += b" " * (len(data) % 2)
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(data), data, 0, True, True)
    # So that pydicom takes them over as they are.
    item.set_original_encoding(True, True, default_encoding)
