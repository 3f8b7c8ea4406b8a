"""A file's seal: what makes it known, after a crash, for one whose sender has heard Success.

It stands in the preamble, which PS3.10 section 7.1 leaves to implementations, and is written last,
before the file is synchronised: bytes that its digest fits were all there. No more is needed to
give the file its row when the ledger is back.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREAMBLE_BYTES = 128
_MAGIC = b"dicomnode seal 1"
_LAYOUT = struct.Struct("<16sQQ32s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What a seal says.

    Attributes:
        size: of the data set, in bytes.
        digest: that tells the data set from any other bytes, in hexadecimal digits.
        association_id: of the association it came over, in the ledger.
    """

    size: int
    digest: str
    association_id: int | None


def encode(seal: Seal) -> bytes:
    """Return a preamble."""
    packed = _LAYOUT.pack(_MAGIC, seal.size, seal.association_id or 0, bytes.fromhex(seal.digest))
    return packed.ljust(PREAMBLE_BYTES, b"\0")


def decode(preamble: bytes) -> Seal | None:
    """Return the seal of a preamble, None where there is none."""
    if len(preamble) != PREAMBLE_BYTES or not preamble.startswith(_MAGIC):
        return None
    _, size, association_id, digest = _LAYOUT.unpack_from(preamble)
    return Seal(size=size, digest=digest.hex(), association_id=association_id or None)
