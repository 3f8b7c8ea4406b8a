"""Findings -> coded content items of the report (TID 1500, TID 1411: qualitative evaluations).

The codes are the node's own, of the private coding scheme that the report itself identifies: no
public scheme knows them. Each structure carries those that are about it, the whole those of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.domain.findings import Finding

SCHEME = "99DICOMNODE"
FINDING = Code("Q000", SCHEME, "Quality finding")
MEANINGS: Mapping[str, Code] = MappingProxyType(
    {
        code: Code(value, SCHEME, meaning)
        for code, value, meaning in (
            ("VALUES_NOT_HU", "Q001", "Values are no Hounsfield units"),
            ("NO_AIR_SEEN", "Q002", "No air in the images"),
            ("SPINE_NOT_AT_BACK", "Q003", "Spine not at the back"),
            ("UPSIDE_DOWN", "Q004", "Upside down"),
            ("ORIENTATION_CONTRADICTS", "Q005", "Stated orientations contradict each other"),
            ("UNDER_18", "Q010", "Patient under 18 years"),
            ("EXTREMITY_ONLY", "Q011", "Extremity only"),
            ("PHANTOM_SCAN", "Q012", "Phantom scan"),
            ("NOTHING_FOUND", "Q020", "Nothing found"),
            ("SITUS_MIRRORED", "Q021", "Situs mirrored"),
            ("SITUS_CONTRADICTS", "Q022", "Situs contradicting"),
            ("SIDES_SWAPPED", "Q023", "Left and right exchanged"),
            ("ORIENTATION_IMPLAUSIBLE", "Q024", "Orientation implausible"),
            ("VERTEBRAE_OUT_OF_ORDER", "Q030", "Vertebrae out of order"),
            ("VERTEBRAE_MISSING", "Q031", "Vertebrae missing in the row"),
            ("VERTEBRA_DOUBLED", "Q032", "Vertebra found twice"),
            ("RIBS_OUT_OF_ORDER", "Q033", "Ribs out of order"),
            ("RIBS_MISSING", "Q034", "Ribs missing in the row"),
            ("RIB_DOUBLED", "Q035", "Rib found twice"),
            ("ONE_SIDE_SMALL", "Q040", "One side missing or much smaller"),
            ("DETACHED_PIECES", "Q041", "Detached pieces"),
            ("VOLUME_IMPLAUSIBLE", "Q042", "Volume implausible"),
            ("CUT_AT_ENDS", "Q050", "Cut by first or last slice"),
            ("CUT_IN_PLANE", "Q051", "Cut by side of field of view"),
            ("SMALLER_PLAN", "Q060", "Analysed with less memory or a smaller model"),
        )
    }
)
"""The private codes, by the node's own."""


def evaluations_of(structure: str, findings: Sequence[Finding]) -> list[sr.CodeContentItem]:
    """Return what a structure's group says of it.

    Args:
        structure: the model's name.
        findings: of the whole result.
    """
    return _items(one.code for one in findings if structure in one.structures)


def items_of_the_whole(findings: Sequence[Finding]) -> list[sr.CodeContentItem]:
    """Return an item for each kind of finding; what it says stands beside it as text."""
    return _items(one.code for one in findings)


def _items(codes: Iterable[str]) -> list[sr.CodeContentItem]:
    return [
        sr.CodeContentItem(
            name=FINDING,
            value=MEANINGS[code],
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        for code in dict.fromkeys(codes)
    ]


def identify_scheme(dataset: Dataset) -> None:
    """Say in a report whose the private codes are (PS3.3 C.12.1.1.7)."""
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Quality findings of dicomnode"
    item.CodingSchemeResponsibleOrganization = "dicomnode"
    dataset.CodingSchemeIdentificationSequence = [
        *dataset.get("CodingSchemeIdentificationSequence", []),
        item,
    ]


def parts_of(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return what of the findings decides a report's content beside their sentences."""
    return tuple(f"{one.code} {' '.join(one.structures)}" for one in findings)
