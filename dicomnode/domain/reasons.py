"""Why a series is refused: every reason code with what it means and what one can do about it.

The codes are stable: they stand in the ledger and on the operator's page. The detail of a refusal
says what was found in this series; the sentence here says what the code means.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "NO_INSTANCES": "The job named no instances; route or send the series again.",
        "UNPARSEABLE": "A file of the series is not readable as DICOM; send the series again.",
        "MISSING_IDENTIFIERS": (
            "A Study, Series or SOP Instance UID is blank, so a result could not be "
            "filed with certainty; correct the series at its source and send it again."
        ),
        "INVALID_IDENTIFIERS": (
            "A UID has characters or a length that DICOM forbids, or what identifies the patient "
            "is encoded as something else than text; results cannot be filed under it."
        ),
        "MIXED_SERIES": (
            "The instances of the series disagree on the patient, study or series they belong to."
        ),
        "CONFLICTING_INSTANCES": "One SOP Instance UID stands for two different images.",
        "BAD_CHARACTER_SET": (
            "Patient or study text cannot be copied exactly, because its character set is wrong or "
            "unknown; correct Specific Character Set at the source."
        ),
        "NOT_CT": "The rule's model takes CT, and the series holds no CT images.",
        "NOT_MR": "The rule's model takes MR, and the series holds no single-frame MR images.",
        "VALUES_OUT_OF_RANGE": (
            "The signal of the MR images is beyond 16 bits, or so small that whole numbers cannot "
            "hold it."
        ),
        "BODY_CROP_NOT_FOR_MR": (
            "The rule asks for body_crop with a model of MR images; correct the rule's options."
        ),
        "BAD_FRAMES": (
            "A multi-frame CT instance does not say what its frames are: functional groups are "
            "missing, damaged or of another number than the frames."
        ),
        "NOT_A_VOLUME": "The series holds localizers or single views only, not a volume.",
        "DERIVED_MAP": (
            "The images are a computed map or projection (iodine, virtual non-contrast, perfusion, "
            "MIP, ...), not CT in Hounsfield units; route the original reconstruction."
        ),
        "MONOENERGETIC": (
            "Virtual monoenergetic images are analysed only where a rule asks for them, with "
            "`monoenergetic: true`: their Hounsfield units are those of one energy."
        ),
        "NOT_HU": (
            "The pixel values are not in Hounsfield units: Rescale Slope and Intercept are missing "
            "or Rescale Type says otherwise."
        ),
        "VALUES_NOT_HU": (
            "The pixel values cannot be Hounsfield units, whatever the header says: a forgotten or "
            "doubled intercept, 8 bits, an inverted or other scale; send the original images."
        ),
        "NO_AIR_SEEN": (
            "No air is in the images, so that the scale of the values could not be checked."
        ),
        "SPINE_NOT_AT_BACK": (
            "In the images the spine lies where the headers say that the front is; correct the "
            "patient's position at the source and send the series again."
        ),
        "UPSIDE_DOWN": (
            "In the images the head end lies where the headers say that the feet are; correct the "
            "patient's position at the source and send the series again."
        ),
        "ORIENTATION_CONTRADICTS": (
            "Patient Orientation and Image Orientation (Patient) contradict each other."
        ),
        "NOTHING_FOUND": "The model found none of its structures.",
        "SITUS_MIRRORED": (
            "Liver, spleen, stomach and heart lie mirrored: situs inversus, or left and right "
            "are exchanged in the images."
        ),
        "SITUS_CONTRADICTS": (
            "One of liver, spleen, stomach and heart lies on the other side than usual."
        ),
        "SIDES_SWAPPED": "Structures named left lie on the right, or the other way round.",
        "ORIENTATION_IMPLAUSIBLE": (
            "By what was found, the head end or the front is not where the headers say."
        ),
        "VERTEBRAE_OUT_OF_ORDER": "Vertebrae are not in order from head to feet.",
        "VERTEBRAE_MISSING": "Vertebrae are missing between others.",
        "VERTEBRA_DOUBLED": "A vertebra was found at two heights.",
        "RIBS_OUT_OF_ORDER": "Ribs are not in order along the spine.",
        "RIBS_MISSING": "Ribs are missing between others.",
        "RIB_DOUBLED": "Two ribs have got one name, or one was found twice.",
        "ONE_SIDE_SMALL": (
            "A structure is missing or less than a third of the same on the other side."
        ),
        "DETACHED_PIECES": "Pieces lie apart from an organ or bone that is one piece.",
        "VOLUME_IMPLAUSIBLE": "A volume is outside what is plausible in adults.",
        "CUT_AT_ENDS": (
            "Structures are cut by the first or last slice; their volumes are incomplete."
        ),
        "CUT_IN_PLANE": (
            "Structures are cut by the side of the field of view; their volumes are incomplete."
        ),
        "UNDER_18": "The patient is under 18, and models are trained on adults.",
        "EXTREMITY_ONLY": "Only an arm or a leg was scanned or found.",
        "PHANTOM_SCAN": "The headers say that a phantom was scanned.",
        "SMALLER_PLAN": (
            "An attempt before ran out of memory or time, so the series was analysed with less."
        ),
        "NO_FRAME_OF_REFERENCE": (
            "Frame of Reference UID is missing, so a segmentation could not be placed in space."
        ),
        "NO_POSITION": (
            "Image Position, Image Orientation, Pixel Spacing, Rows or Columns is missing or wrong."
        ),
        "TOO_FEW_SLICES": "The series has too few slices to be a volume.",
        "MIXED_FRAMES_OF_REFERENCE": (
            "The series mixes Frames of Reference and none clearly prevails; split the series."
        ),
        "MIXED_ORIENTATION": (
            "The series mixes slice orientations and none clearly prevails; split the series."
        ),
        "MIXED_MATRIX": (
            "The series mixes image sizes or pixel spacings and none clearly prevails; split the "
            "series."
        ),
        "MIXED_CONTENT": (
            "Most images of the series cannot be analysed; route the original reconstruction alone."
        ),
        "DUPLICATE_POSITIONS": (
            "Several images lie at one position (phases, time points, kernels) and none of these "
            "stacks clearly prevails; send them as series of their own."
        ),
        "MISSING_SLICE": (
            "Slices are so far apart that nothing can be said of what lies between; send the "
            "series again with all its slices."
        ),
        "GANTRY_TILT": (
            "The slices are shifted against each other in a way that no gantry tilt explains."
        ),
        "MODEL_NOT_COMMISSIONED": (
            "The model has not been run on a reference case with these weights and this version of "
            "the node; see `dicomnode models commission`, then requeue the job."
        ),
        "DEVICE_TOO_SMALL": (
            "The model's card requires more memory than any device of this node has; run it on "
            "another machine, or choose a smaller model."
        ),
        "UNDECODABLE": (
            "The pixel data cannot be decoded: damaged, truncated, or in an unsupported transfer "
            "syntax."
        ),
        "UNKNOWN_STRUCTURES": (
            "The rule asks for structures that its model does not find; correct the rule's options."
        ),
    }
)


def explain(code: str) -> str:
    """Return what `code` means; codes of other origin are returned as they are."""
    return REASONS.get(code, code)
