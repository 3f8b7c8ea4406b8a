"""A file -> its images: itself where it holds one, each of its frames where it holds several.

Enhanced and Legacy Converted Enhanced CT (PS3.3 A.38, A.70) say what a frame is in functional
groups, shared or its own. Here a frame gets the same attributes as an image of its own would have,
so that nothing after this needs to know of frames but decoding and references.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.uid import EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from dicomnode.errors import Refusal
from dicomnode.imaging.elements import Buffer, Encoding, MalformedError, elements, items
from dicomnode.imaging.fields import KEYWORDS, Fields, Known, number, read_fields, tags_of
from dicomnode.imaging.parsing import Parsed

MULTIFRAME = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})

_GROUPS = {
    # Functional group -> attribute -> the keyword by which single-frame images have it.
    "PlanePositionSequence": {"ImagePositionPatient": ""},
    "PlaneOrientationSequence": {"ImageOrientationPatient": ""},
    "PixelMeasuresSequence": {"PixelSpacing": "", "SliceThickness": ""},
    "PixelValueTransformationSequence": {
        "RescaleIntercept": "",
        "RescaleSlope": "",
        "RescaleType": "",
    },
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "FrameContentSequence": {
        "StackID": "",
        "FrameAcquisitionNumber": "AcquisitionNumber",
        "TemporalPositionIndex": "TemporalPositionIdentifier",
        "DimensionIndexValues": "",
    },
    "TemporalPositionSequence": {"TemporalPositionTimeOffset": ""},
    "CardiacSynchronizationSequence": {
        "NominalPercentageOfCardiacPhase": "",
        "NominalCardiacTriggerDelayTime": "TriggerTime",
    },
    "RespiratorySynchronizationSequence": {"NominalPercentageOfRespiratoryPhase": ""},
    "CTXRayDetailsSequence": {"KVP": ""},
    "CTReconstructionSequence": {"ConvolutionKernel": "", "ReconstructionAlgorithm": ""},
}
_UNASSIGNED = (
    # Legacy Converted: attributes that have no functional group stay as they were.
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
_NEVER_CONVERTED = ("SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "SpecificCharacterSet")
_SPATIAL = ("ImagePositionPatient", "InStackPositionNumber", "StackID", "SliceLocation")
"""Dimensions (PS3.3 C.7.6.17) that say where a frame lies; every other one tells apart what must
not be mixed."""


def _tables() -> dict[int, dict[int, str]]:
    """Return for the tag of each functional group the keywords by the tags of its attributes."""
    tables = {}
    for sequence, attributes in _GROUPS.items():
        (tag,) = tags_of([sequence])
        tags = tags_of(attributes)
        tables[tag] = {number: attributes[name] or name for number, name in tags.items()}
    kept = tags_of(keyword for keyword in KEYWORDS if keyword not in _NEVER_CONVERTED)
    tables.update((tag, kept) for tag in tags_of(_UNASSIGNED))
    return tables


_TABLES = _tables()
_POINTER = tags_of(["DimensionIndexPointer"])
_SPATIAL_TAGS = frozenset(f"{tag:08X}" for tag in tags_of(_SPATIAL))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image:
    """One image: an instance, or a frame of one."""

    instance: Parsed
    frame_number: int | None
    """From 1; None where the instance is single-frame."""
    fields: Fields
    """Of the instance and, before those, of the frame."""


def images_of(parsed: Parsed, known: Known | None = None) -> list[Image]:
    """Return the images of an instance.

    Raises:
        Refusal: BAD_FRAMES, where a multi-frame instance does not say what its frames are.
    """
    if parsed.sop_class_uid not in MULTIFRAME:
        return [Image(instance=parsed, frame_number=None, fields=parsed.fields)]
    try:
        frames = list(_frames(parsed, {} if known is None else known))
    except (KeyError, MalformedError):
        raise Refusal(
            "BAD_FRAMES", "The functional groups of a multi-frame instance cannot be read."
        ) from None
    declared = number(parsed.fields, "NumberOfFrames")
    if declared != len(frames):
        raise Refusal(
            "BAD_FRAMES",
            f"An instance of {declared or 0:g} frames has functional groups for {len(frames)}.",
        )
    return frames


def _frames(parsed: Parsed, known: Known) -> Iterator[Image]:
    data, encoding = parsed.opened(), parsed.encoding
    shared: Fields = {}
    if "SharedFunctionalGroupsSequence" in parsed.spans:
        for span in items(data, *parsed.spans["SharedFunctionalGroupsSequence"], encoding):
            shared = _flat(data, span, encoding, known)
    apart = _dimensions_apart(parsed, data, known)
    spans = items(data, *parsed.spans["PerFrameFunctionalGroupsSequence"], encoding)
    for index, span in enumerate(spans, start=1):
        fields = {**parsed.fields, **shared, **_flat(data, span, encoding, known)}
        values = fields.pop("DimensionIndexValues", ())
        fields["DimensionIndexValues"] = tuple(values[at] for at in apart if at < len(values))
        yield Image(instance=parsed, frame_number=index, fields=fields)


def _flat(
    data: Buffer, span: tuple[int, int], encoding: Encoding, known: Known
) -> dict[str, tuple[str, ...]]:
    """Return the attributes of all functional groups in an item; a group's own come first."""
    grouped: dict[str, tuple[str, ...]] = {}
    unassigned: dict[str, tuple[str, ...]] = {}
    for tag, _vr, start, end in elements(data, *span, encoding):
        table = _TABLES.get(tag)
        if table is None:
            continue
        into = grouped if len(table) < len(KEYWORDS) // 2 else unassigned
        for item in items(data, start, end, encoding):
            into.update(read_fields(data, item, table, encoding, known))
            break  # these groups have one item
    return unassigned | grouped


def _dimensions_apart(parsed: Parsed, data: Buffer, known: Known) -> list[int]:
    """Return which of the Dimension Index Values do not say where a frame lies."""
    if "DimensionIndexSequence" not in parsed.spans:
        return []
    pointers = [
        read_fields(data, item, _POINTER, parsed.encoding, known).get("DimensionIndexPointer", ())
        for item in items(data, *parsed.spans["DimensionIndexSequence"], parsed.encoding)
    ]
    return [at for at, pointer in enumerate(pointers) if not _SPATIAL_TAGS.intersection(pointer)]
