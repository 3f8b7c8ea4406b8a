"""DICOM files (PS3.10) around data sets as they come over the network: the prefix, and back."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import BinaryIO

from pydicom.filereader import _read_file_meta_info as read_file_meta
from pydicom.filereader import read_preamble

from dicomnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomnode.instances.fields import UnreadableError


def file_prefix(sop_class: str, sop_instance: str, transfer_syntax: str) -> bytes:
    """Return preamble and File Meta Information for a data set received by C-STORE (PS3.10 7.1).

    Raises:
        ValueError: the UIDs cannot stand there.
    """
    elements = _meta(0x0001, b"OB", b"\0\1")
    for number, uid in (
        (0x0002, sop_class),
        (0x0003, sop_instance),
        (0x0010, transfer_syntax),
        (0x0012, IMPLEMENTATION_CLASS_UID),
    ):
        value = uid.encode("ascii")
        if not 1 <= len(value) <= 64:
            raise ValueError("a UID has 1 to 64 characters")
        elements += _meta(number, b"UI", value + b"\0" * (len(value) % 2))
    name = IMPLEMENTATION_VERSION_NAME.encode("ascii")
    elements += _meta(0x0013, b"SH", name + b" " * (len(name) % 2))
    length = _meta(0x0000, b"UL", len(elements).to_bytes(4, "little"))
    return b"\0" * 128 + b"DICM" + length + elements


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"OB":
        return struct.pack("<HH2sHI", 2, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def split_file(data: bytes) -> tuple[str, int]:
    """Return the transfer syntax of a DICOM file and where its data set begins (PS3.10 7.1).

    Raises:
        UnreadableError: there is no File Meta Information that says it.
    """
    return read_meta(BytesIO(data))


def read_meta(file: BinaryIO) -> tuple[str, int]:
    """Return the transfer syntax of a DICOM file and where its data set begins (PS3.10 7.1).

    Raises:
        UnreadableError: there is no File Meta Information that says it.
    """
    try:
        read_preamble(file, force=False)
        meta = read_file_meta(file)
        return str(meta.TransferSyntaxUID), file.tell()
    except Exception as error:  # hostile bytes can raise anything in a parser
        raise UnreadableError(f"no File Meta Information ({type(error).__name__})") from error
