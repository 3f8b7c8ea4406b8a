"""What a transfer syntax says about a data set's encoding (PS3.5 section 10), looked up once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicomnode.domain.identifiers import TransferSyntaxUID


@dataclass(frozen=True, slots=True)
class Syntax:
    """What a Transfer Syntax UID says about how a data set is encoded."""

    uid: TransferSyntaxUID
    key: bytes
    is_implicit: bool
    is_little_endian: bool
    is_deflated: bool


@lru_cache(maxsize=64)
def syntax_of(transfer_syntax: str) -> Syntax:
    """Look a Transfer Syntax UID up."""
    uid = UID(transfer_syntax)
    return Syntax(
        uid=TransferSyntaxUID(transfer_syntax),
        key=transfer_syntax.encode(),
        is_implicit=uid.is_implicit_VR,
        is_little_endian=uid.is_little_endian,
        is_deflated=uid == DeflatedExplicitVRLittleEndian,
    )
