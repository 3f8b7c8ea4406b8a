"""What names a thing: UIDs with their types, their validation, and the UIDs this node derives.

A UID that came from a peer is hostile until `parse_uid` has seen it; only then it names a folder.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

StudyUID = NewType("StudyUID", str)
SeriesUID = NewType("SeriesUID", str)
InstanceUID = NewType("InstanceUID", str)
SOPClassUID = NewType("SOPClassUID", str)
TransferSyntaxUID = NewType("TransferSyntaxUID", str)
PatientKey = NewType("PatientKey", str)
"""Keyed hash of Patient ID and issuer; never the ID itself."""

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_LENIENT_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
MAX_UID_LENGTH = 64


class InvalidUIDError(ValueError):
    """The text is not a UID of PS3.5 section 9 (digits and dots, at most 64 characters)."""


def parse_uid(text: str) -> str:
    """Return `text` without its padding, if it can serve as a UID.

    Components with leading zeros break PS3.5 section 9.1 but occur in archives and are harmless
    as names, so they pass; anything but digits and single dots does not.

    Raises:
        InvalidUIDError: too long, or other characters than digits and single dots.
    """
    uid = text.rstrip(" \0")
    if len(uid) > MAX_UID_LENGTH:
        raise InvalidUIDError(f"UID of {len(uid)} characters, at most {MAX_UID_LENGTH} are allowed")
    if not _LENIENT_UID.fullmatch(uid):
        raise InvalidUIDError("UID is empty or has characters other than digits and single dots")
    return uid


def is_strict_uid(text: str) -> bool:
    """Whether `text` follows PS3.5 section 9.1 to the letter."""
    return len(text) <= MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def derive_uid(*parts: str) -> str:
    """Return the UID 2.25.N whose N is decided by `parts` alone (PS3.5 section B.2).

    Equal parts give equal UIDs on every machine; parts are length-prefixed, so that ("ab", "c")
    and ("a", "bc") differ. N has the version and variant bits of a name-based UUID (RFC 9562, 8).
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    number = int.from_bytes(digest.digest()[:16], "big")
    number = number & ~(0xF << 76) | (0x8 << 76)
    number = number & ~(0x3 << 62) | (0x2 << 62)
    return f"2.25.{number}"
