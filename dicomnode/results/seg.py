"""Label map -> DICOM Segmentation, BINARY, Explicit VR Little Endian (PS3.3 A.51).

Only segments that were found and frames that hold one are written. Segment numbers run from 1 in
the order of the labels; the model's own number and name stay in Segment Description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentationTypeValues
from numpy.typing import NDArray
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
from dicomnode.results.frames import find_frames, write_frames
from dicomnode.results.headers import Source
from dicomnode.results.model import Model
from dicomnode.results.references import as_points, refer_to_frames, stand_ins
from dicomnode.results.systems import system_of
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


def find_present(labels: LabelMap) -> NDArray[np.bool_]:
    """Return [slice, label] whether a slice has a voxel of a label; of background never."""
    # NumPy counts in copies of eight times the size: slice by slice, and without the background.
    counts = [np.bincount(image[image != 0], minlength=256) for image in labels.labels]
    return np.array(counts) > 0


def find_segments(source: Source, present: NDArray[np.bool_], model: Model) -> tuple[Segment, ...]:
    """Return the segments of the labels that occur, in the order of the labels.

    Args:
        present: from `find_present`.

    Raises:
        CodeTableError: the model's table is missing.
        ValueError: a label has no row in the table.
    """
    table = load_codes(model.code_table)
    series_uid = str(source.headers[0].SeriesInstanceUID)
    found = (np.flatnonzero(present[:, 1:].any(axis=0)) + 1).tolist()
    unknown = [label for label in found if label not in table]
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
        for number, label in enumerate(found, start=1)
    )


def of_system(segments: Sequence[Segment], model: Model, system: str) -> tuple[Segment, ...]:
    """Return the segments of one system of the body (`systems.system_of`), numbered from 1."""
    mine = [
        segment
        for segment in segments
        if system_of(model.structures.get(segment.label, segment.codes.name)) == system
    ]
    return tuple(replace(segment, number=number) for number, segment in enumerate(mine, start=1))


def encode_seg(
    source: Source,
    labels: LabelMap,
    present: NDArray[np.bool_],
    segments: Sequence[Segment],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
    *,
    kind: str = SEG,
) -> ResultInstance:
    """Return the Segmentation of `segments` (at least one) on the grid of the source.

    highdicom makes the object with one frame of one voxel a slice; the frames as they are then are
    written in bulk: asked for all of them it takes ten times as long, and all their memory.

    Args:
        present: from `find_present`.
        kind: of the result: SEG, or one of `SEG_PARTS`.
    """
    images = as_points(stand_ins(source))
    # highdicom looks on every slice for every segment: it is told of two, which stand for many.
    marks = np.minimum(first_numbers(present, segments), 2)
    few, binary = segments[:2], SegmentationTypeValues.BINARY
    with quiet_pydicom():
        dataset = make_object(
            binary, images, marks, source, few, model, plan, identifiers, name=kind
        )
        dataset.SegmentSequence = [describe(segment, model) for segment in segments]
        items = items_by_slice(dataset, images)
        refer_to_frames(dataset, source)
    numbers = {segment.label: segment.number for segment in segments}
    frames = find_frames(present, numbers, tuple(items))
    return finish(
        dataset,
        source,
        identifiers,
        times(source, plan),
        kind=kind,
        summary={"segments": len(segments), "frames": len(frames)},
        write=lambda file, header: write_frames(file, header, items, frames, labels.labels),
        folder=plan.results_folder,
    )


def make_object(
    kind: SegmentationTypeValues,
    images: Sequence[Dataset],
    numbers: NDArray[np.uint8],
    source: Source,
    segments: Sequence[Segment],
    model: Model,
    plan: Plan,
    identifiers: Identifiers,
    *,
    name: str = SEG,
    syntax: str = ExplicitVRLittleEndian,
) -> hd.seg.Segmentation:
    """Return highdicom's object, which refers to `images`.

    Args:
        images: one a slice, as large as the slices of `numbers`.
        numbers: Segment Numbers [slice, row, column].
        name: kind of result, for the description of the series.
    """
    moment = times(source, plan)
    binary = kind is SegmentationTypeValues.BINARY
    dataset = hd.seg.Segmentation(
        source_images=images,
        pixel_array=numbers,
        segmentation_type=kind,
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
        transfer_syntax_uid=syntax,
        pixel_measures=_pixel_measures(source),
        omit_empty_frames=binary,
        contributing_equipment=[contributing_equipment(model, plan, moment)],
        series_description=series_description(name, source, model, plan),
        content_date=moment.date,
        content_time=moment.time,
        series_date=moment.date,
        series_time=moment.time,
    )
    if source.requests:
        dataset.RequestAttributesSequence = list(source.requests)
    _fix_dimension_organization(dataset, identifiers.dimension_organization_uid)
    return dataset


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


def first_numbers(present: NDArray[np.bool_], segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """Return one voxel a slice [slice, 1, 1]: its first segment, or 0 where it has none."""
    mine = present[:, [segment.label for segment in segments]]
    numbers = np.array([segment.number for segment in segments], np.uint8)
    first = np.where(mine.any(axis=1), numbers[mine.argmax(axis=1)], 0)
    return first.astype(np.uint8).reshape(-1, 1, 1)


def items_by_slice(dataset: Dataset, images: Sequence[Dataset]) -> dict[int, Dataset]:
    """Return the functional groups by the index of their slice, in the order of the positions."""
    indices = {str(image.SOPInstanceUID): index for index, image in enumerate(images)}
    found = {}
    for item in dataset.PerFrameFunctionalGroupsSequence:
        (image,) = item.DerivationImageSequence[0].SourceImageSequence
        # One value alone is no list.
        position = np.ravel(item.FrameContentSequence[0].DimensionIndexValues)[-1]
        found[int(position)] = (indices[str(image.ReferencedSOPInstanceUID)], item)
    return dict(found[position] for position in sorted(found))


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
