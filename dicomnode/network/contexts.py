"""Which Presentation Contexts the node accepts, and in which Transfer Syntax. Tables, no sockets.

Of the Transfer Syntaxes that a peer proposes in one Presentation Context the acceptor chooses
(PS3.8 section 7.1.1.13). The node chooses so that no peer ever loses a bit on its account: any
uncompressed syntax comes before any compressed one, any lossless before any that may be lossy. What
a modality has compressed already it proposes in a context of its own, or alone, and it is taken as
it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dicomnode.domain.identifiers import InvalidUIDError, parse_uid

VERIFICATION = "1.2.840.10008.1.1"
"""Verification SOP Class (PS3.4 annex A)."""
COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class (PS3.4 annex J)."""
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"

ACCEPTANCE = 0
NO_REASON = 2
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4
"""Result of a Presentation Context (PS3.8 table 9-18)."""

# Ready to read, and what most peers propose beside anything else.
UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # Explicit VR Little Endian
    IMPLICIT_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.2",  # Explicit VR Big Endian (retired)
    "1.2.840.10008.1.2.1.98",  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
)
# Quick to decode before slow: 3.3, 6.6, 6.8, 7.1 and, for JPEG 2000, 17 ms were measured for a CT
# slice of 512 x 512 with the decoders that pydicom finds here; HTJ2K and the last three were not.
LOSSLESS = (
    "1.2.840.10008.1.2.5",  # RLE Lossless
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction (Process 14, SV 1)
    "1.2.840.10008.1.2.4.80",  # JPEG-LS Lossless
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless (Process 14)
    "1.2.840.10008.1.2.4.202",  # HTJ2K Lossless RPCL
    "1.2.840.10008.1.2.4.201",  # HTJ2K Lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 Lossless
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 Part 2 Multi-component Lossless
    "1.2.840.10008.1.2.4.58",  # JPEG Lossless (Process 15, retired)
    "1.2.840.10008.1.2.4.65",  # JPEG Lossless, hierarchical (Process 28, retired)
    "1.2.840.10008.1.2.4.66",  # JPEG Lossless, hierarchical (Process 29, retired)
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression
    "1.2.840.10008.1.2.4.110",  # JPEG XL Lossless
)
# Lossless or lossy, as the image is.
EITHER = (
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 Part 2 Multi-component
    "1.2.840.10008.1.2.4.81",  # JPEG-LS Near-lossless
    "1.2.840.10008.1.2.4.112",  # JPEG XL
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG Recompression
)
LOSSY = (
    "1.2.840.10008.1.2.4.51",  # JPEG Extended (Process 2 and 4): 12 bits before 8
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline (Process 1)
    # JPEG processes that DICOM retired in 2001 (PS3.6 annex A): archives still hold such instances,
    # and what arrives is kept, whether it can be decoded or not.
    *(f"1.2.840.10008.1.2.4.{number}" for number in (*range(52, 57), *range(59, 65))),
    *(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109)),  # MPEG-2, H.264, H.265
    *(f"1.2.840.10008.1.2.4.{number}.1" for number in range(100, 107)),  # their fragmentable forms
)
TRANSFER_SYNTAXES = (*UNCOMPRESSED, *LOSSLESS, *EITHER, *LOSSY)
"""All that are accepted, what we prefer first. Those whose pixels lie elsewhere (JPIP Referenced)
or pass by (SMPTE ST 2110) are missing: to acknowledge them would be to acknowledge nothing."""

_CLASSES = "1.2.840.10008.5.1.4.1.1."
# fmt: off
KNOWN_STORAGE_CLASSES = tuple(_CLASSES + tail for tail in (
    "2", "2.1", "2.2",  # CT, Enhanced CT, Legacy Converted Enhanced CT
    "4", "4.1", "4.2", "4.3", "4.4",  # MR: classic, Enhanced, Spectroscopy, Color, Legacy Converted
    "128", "128.1", "130",  # PET: classic, Legacy Converted Enhanced, Enhanced
    "7", "7.1", "7.2", "7.3", "7.4",  # Secondary Capture
    "11.1", "11.2", "11.3", "11.4", "11.5", "11.6", "11.7", "11.8", "11.9", "11.10", "11.11",
    "11.12",  # presentation states
    "66", "66.1", "66.2", "66.3",  # Raw Data, Spatial Registration and Fiducials, Deformable
    "66.4", "66.7", "66.5", "66.8",  # Segmentation, Label Map, Surface, Height Map
    "67", "30",  # Real World Value Mapping, Parametric Map
    "88.11", "88.22", "88.33", "88.34", "88.35", "88.40", "88.50", "88.65", "88.69",  # SR
    "88.59",  # Key Object Selection
    "88.67", "88.68", "88.71", "88.73", "88.74", "88.75", "88.76",  # dose and administration
    "481.1", "481.2", "481.3", "481.4", "481.5", "481.6", "481.7", "481.8", "481.9",  # RT
    *(f"481.{number}" for number in range(10, 26)),  # second generation RT
    "200.2",  # CT Performed Procedure Protocol
    "104.1", "104.2",  # Encapsulated PDF and CDA
))
"""Storage SOP Classes (PS3.4 annex B) of what surrounds a CT, MR or PET study and its results."""
# fmt: on
WITHOUT_A_STUDY = frozenset(
    _CLASSES + tail
    for tail in (
        *("200.1", "200.3", "200.4", "200.5", "200.6", "200.7"),
        *("201.1", "201.2", "201.3", "201.4", "201.5", "201.6"),
    )
)
"""Protocols, their approvals, inventories and queries of these: no patient and no study, nothing to
file them under."""

UnknownClasses = Literal["keep", "refuse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """A Presentation Context as a peer proposes it (PS3.8 section 9.3.2.2)."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredContext:
    """Our answer to it (PS3.8 section 9.3.3.2)."""

    id: int
    abstract_syntax: str
    result: int
    transfer_syntax: str
    """The one that is used; of no meaning where the context is not accepted."""

    @property
    def is_accepted(self) -> bool:
        return self.result == ACCEPTANCE


_RANK = {syntax: rank for rank, syntax in enumerate(TRANSFER_SYNTAXES)}
_KNOWN = frozenset(KNOWN_STORAGE_CLASSES)
_VERIFICATION_SYNTAXES = frozenset(UNCOMPRESSED[:3])


def is_stored(sop_class: str, unknown: UnknownClasses) -> bool:
    """Whether instances of a SOP Class are taken.

    Args:
        sop_class: the Abstract Syntax that a peer proposes, whatever it is.
        unknown: what becomes of classes beyond `KNOWN_STORAGE_CLASSES`: `keep` takes every other
            storage class of the standard, of today or to come, and private ones.
    """
    if sop_class in _KNOWN:
        return True
    if unknown == "refuse" or sop_class in WITHOUT_A_STUDY:
        return False
    try:
        parse_uid(sop_class)
    except InvalidUIDError:
        return False
    if sop_class.startswith(_CLASSES):
        return True
    if sop_class.startswith("1.2.840.10008."):  # other services: queries, worklists, commitment
        return sop_class in ("1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10")
    return True


def answer(
    proposed: Iterable[ProposedContext], unknown: UnknownClasses = "keep"
) -> tuple[AnsweredContext, ...]:
    """Answer each proposed Presentation Context, in the order of the proposal.

    UIDs in a PDU are not padded (PS3.8 annex F), and some peers pad them: that is overlooked.
    """
    return tuple(_answer(context, unknown) for context in proposed)


def _answer(context: ProposedContext, unknown: UnknownClasses) -> AnsweredContext:
    abstract = _unpadded(context.abstract_syntax)
    result, syntax = _choose(abstract, map(_unpadded, context.transfer_syntaxes), unknown)
    return AnsweredContext(
        id=context.id, abstract_syntax=abstract, result=result, transfer_syntax=syntax
    )


def _unpadded(uid: str) -> str:
    return uid.rstrip("\0 ")


def _choose(abstract: str, proposed: Iterable[str], unknown: UnknownClasses) -> tuple[int, str]:
    if abstract in (VERIFICATION, COMMITMENT):
        found = [syntax for syntax in proposed if syntax in _VERIFICATION_SYNTAXES]
    elif is_stored(abstract, unknown):
        found = [syntax for syntax in proposed if syntax in _RANK]
    else:
        return ABSTRACT_SYNTAX_NOT_SUPPORTED, IMPLICIT_LITTLE_ENDIAN
    if not found:
        return TRANSFER_SYNTAXES_NOT_SUPPORTED, IMPLICIT_LITTLE_ENDIAN
    return ACCEPTANCE, preferred(found)


def preferred(syntaxes: Sequence[str]) -> str:
    """Return the Transfer Syntax that the node chooses among several that it accepts."""
    return min(syntaxes, key=_RANK.__getitem__)
