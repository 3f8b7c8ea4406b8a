"""Label map -> DICOM Segmentation, BINARY, Explicit VR Little Endian (PS3.3 A.51).

Only segments that were found and frames that hold one are written. Segment numbers run from 1 in
the order of the labels; the model's own number and name stay in Segment Description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from dicomnode.domain.plans import MANUFACTURER, SEG, Plan, ResultInstance
from dicomnode.quiet import quiet_pydicom
from dicomnode.results.codes import SNOMED_CT, Concept, StructureCodes, load_codes
from dicomnode.results.common import (
    MAX_LONG_STRING,
    NOT_FOR_DIAGNOSIS,
    contributing_equipment,
    finish,
    series_description,
    software_versions,
    times,
)
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.references import refer_to_frames, stand_ins
from dicomnode.results.uids import Identifiers, tracking_uid
from dicomnode.scan import LabelMap

AI_FAMILY = Code("123110", "DCM", "Artificial Intelligence")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One structure that was found."""

    number: int
    """Segment Number, from 1."""
    label: int
    """The model's integer."""
    codes: StructureCodes
    tracking_id: str
    tracking_uid: str


def find_segments(source: Source, labels: LabelMap, model: Model) -> tuple[Segment, ...]:
    """Return the segments of the labels that occur, in the order of the labels.

    Raises:
        CodeTableError: the model's table is missing.
        ValueError: a label has no row in the table.
    """
    table = load_codes(model.code_table)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    # Slice by slice: NumPy counts in copies of eight times the size.
    counts = np.zeros(256, np.int64)
    for image in labels.labels:
        counts += np.bincount(image.ravel(), minlength=256)
    present = np.flatnonzero(counts[1:]) + 1
    unknown = [label for label in present.tolist() if label not in table]
    if unknown:
        raise ValueError(f"labels {unknown} are not in the code table {model.code_table!r}")
    return tuple(
        Segment(
            number=number,
            label=label,
            codes=table[label],
            tracking_id=f"{model.id} {model.structures.get(label, table[label].name)}"[
                :MAX_LONG_STRING
            ],
            tracking_uid=tracking_uid(series_uid, model, label),
        )
        for number, label in enumerate(present.tolist(), start=1)
    )


def encode_seg(
    source: Source,
    labels: LabelMap,
    segments: Sequence[Segment],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
) -> ResultInstance:
    """Return the Segmentation of `segments` (at least one) on the grid of the source."""
    moment = times(source, plan)
    description = series_description(SEG, source, model, plan)
    with quiet_pydicom():
        dataset = hd.seg.Segmentation(
            source_images=stand_ins(source),
            pixel_array=_numbered(labels, segments),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[describe(segment, model) for segment in segments],
            series_instance_uid=identifiers.series_uid,
            series_number=identifiers.series_number,
            sop_instance_uid=identifiers.sop_instance_uid,
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=model.id[:MAX_LONG_STRING],
            software_versions=software_versions(model),
            device_serial_number=model.weights_digest[:16],
            content_description=f"{NOT_FOR_DIAGNOSIS}: {model.title}"[:MAX_LONG_STRING],
            content_creator_name="DICOMNODE^AI",
            content_label="SEGMENTATION",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=_pixel_measures(source),
            omit_empty_frames=True,
            contributing_equipment=[contributing_equipment(model, plan, moment)],
            series_description=description,
            content_date=moment.date,
            content_time=moment.time,
            series_date=moment.date,
            series_time=moment.time,
        )
        refer_to_frames(dataset, source)
        if source.requests:
            dataset.RequestAttributesSequence = list(source.requests)
        _fix_dimension_organization(dataset, identifiers.dimension_organization_uid)
    return finish(
        dataset,
        source,
        identifiers,
        moment,
        kind=SEG,
        summary={"segments": len(segments), "frames": int(dataset.NumberOfFrames)},
    )


def describe(segment: Segment, model: Model) -> hd.seg.SegmentDescription:
    """Return the item of the Segment Sequence, with laterality as a modifier of the type."""
    codes = segment.codes
    description = hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=codes.segment_label,
        segmented_property_category=concept(codes.category),
        segmented_property_type=concept(codes.type),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.title[:MAX_LONG_STRING],
            family=AI_FAMILY,
            version=model.version[:MAX_LONG_STRING],
        ),
        tracking_uid=segment.tracking_uid,
        tracking_id=segment.tracking_id,
        anatomic_regions=[concept(codes.region)] if codes.region else None,
    )
    name = model.structures.get(segment.label, codes.name)
    description.SegmentDescription = f"{model.id} label {segment.label}: {name}"
    description.RecommendedDisplayCIELabValue = list(codes.cielab)
    # highdicom has no argument for modifiers.
    if codes.type_modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(codes.type_modifier)]
    if codes.region and codes.region_modifier:
        region = description.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [concept(codes.region_modifier)]
    return description


def concept(value: Concept) -> hd.sr.CodedConcept:
    """Return the item of a code sequence."""
    return hd.sr.CodedConcept(value.value, SNOMED_CT, value.meaning)


def _numbered(labels: LabelMap, segments: Sequence[Segment]) -> np.ndarray:
    """Return Segment Numbers [slice, row, column] in place of labels."""
    table = np.zeros(256, np.uint8)
    for segment in segments:
        table[segment.label] = segment.number
    return table[labels.labels]


def _pixel_measures(source: Source) -> hd.PixelMeasuresSequence:
    header = source.headers[0]
    return hd.PixelMeasuresSequence(
        pixel_spacing=[float(value) for value in header.PixelSpacing],
        slice_thickness=float(header.SliceThickness),
        spacing_between_slices=source.scan.spacing_mm[0] if source.scan.is_regular else None,
    )


def _fix_dimension_organization(dataset: Dataset, uid: str) -> None:
    dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID = uid
    for item in dataset.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid


SOP_CLASS_UID = str(SegmentationStorage)
