"""The character set of a result: one in which the source's text stays what it is.

Text that says who the patient is must be the same characters in the result as in the source, and
where the character set can be kept, the same bytes.
"""

from __future__ import annotations

import re
from io import BytesIO

import pydicom
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.errors import Refusal

_KEPT_CHARACTER_SETS = frozenset(
    {term for term in python_encoding if term.startswith("ISO_IR")} | {"GB18030", "GBK"}
)
UTF_8 = "ISO_IR 192"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What pydicom puts in place of bytes that are not in the character set."""


def choose_character_set(original: Dataset, identity: Dataset) -> str | None:
    """Return the Specific Character Set in which the results can hold the same text.

    Raises:
        Refusal: BAD_CHARACTER_SET.
    """
    declared = original.get("SpecificCharacterSet")
    terms = [declared] if isinstance(declared, str) else list(declared or [])
    terms = [_respelt(str(term).strip()) for term in terms]
    text = [str(element.value) for element in identity]
    exact = all(value.isascii() and "\x1b" not in value for value in text)
    known = all(term in python_encoding for term in terms)
    if not exact and (not known or any(REPLACEMENT in value or "\x1b" in value for value in text)):
        raise Refusal(
            "BAD_CHARACTER_SET",
            "The patient's or study's text cannot be read with the character set it declares.",
        )
    if not terms and not exact:
        chosen = None  # the same bytes without a declaration, as in the source
    elif len(terms) == 1 and terms[0] in _KEPT_CHARACTER_SETS:
        chosen = terms[0]
    else:
        chosen = UTF_8
    if not _round_trips(identity, chosen):
        raise Refusal(
            "BAD_CHARACTER_SET", "The patient's or study's text would not survive being copied."
        )
    return chosen


def _respelt(term: str) -> str:
    """Return a Specific Character Set term with the spaces and underlines of PS3.3 C.12.1.1.2."""
    one_byte = re.fullmatch(r"ISO.IR.?(\d+)", term)
    extended = re.fullmatch(r"ISO.2022.IR.(\d+)", term)
    if one_byte:
        return f"ISO_IR {one_byte[1]}"
    return f"ISO 2022 IR {extended[1]}" if extended else term


def _round_trips(identity: Dataset, character_set: str | None) -> bool:
    sent = Dataset()
    sent.update(identity)
    if character_set is not None:
        sent.SpecificCharacterSet = character_set
    buffer = BytesIO()
    try:
        pydicom.dcmwrite(buffer, sent, implicit_vr=False, little_endian=True)
    except (UnicodeError, ValueError):
        return False
    buffer.seek(0)
    received = pydicom.dcmread(buffer, force=True)
    received.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return all(str(received[element.tag].value) == str(element.value) for element in identity)
