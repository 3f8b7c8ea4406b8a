"""What identifies patient and study is copied exactly or refused; the rest is mended or dropped."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.results.headers import Source, prepare
from dicomnode.scan import Scan

# The invalid values are the point.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HU = np.full((4, 4, 5), -1000, np.int16)


def scan_with(**extra: object) -> Scan:
    return read_scan(write_series(HU, np.eye(4), SeriesOptions(extra=extra)))


def raw(keyword: str, value: bytes, character_set: bytes | None) -> Scan:
    """A scan whose header holds these bytes, whatever they mean."""
    files = []
    for data in write_series(HU, np.eye(4)):
        element = pydicom.dcmread(BytesIO(data))[keyword]
        old = str(element.value).encode()
        changed = data.replace(
            _explicit(element.tag, element.VR, old), _explicit(element.tag, element.VR, value)
        )
        declared = b"" if character_set is None else _explicit(0x00080005, "CS", character_set)
        files.append(changed.replace(_explicit(0x00080005, "CS", b"ISO_IR 100"), declared))
    return read_scan(files)


def _explicit(tag: int, representation: str, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian with a short length."""
    value += b" " * (len(value) % 2)
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + representation.encode() + len(value).to_bytes(2, "little") + value


def written_name(source: Source) -> bytes:
    dataset = Dataset()
    dataset.update(source.identity)
    if "SpecificCharacterSet" in source.headers[0]:
        dataset.SpecificCharacterSet = source.headers[0].SpecificCharacterSet
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    buffer.seek(0)
    element = pydicom.dcmread(buffer, force=True).get_item("PatientName")
    return bytes(element.value).rstrip(b" ")


def test_type_2_attributes_are_always_there() -> None:
    source = prepare(scan_with(PatientSex=None, StudyID=None, ReferringPhysicianName=None))
    header = source.headers[0]
    assert (header.PatientSex, header.StudyID, header.ReferringPhysicianName) == ("", "", "")
    assert source.findings == ()


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientSex", "m", "M"),
        ("PatientSex", "W", ""),
        ("StudyDate", "2020.01.31", "20200131"),
        ("StudyDate", "20201301", ""),
        ("StudyDate", "yesterday", ""),
        ("StudyTime", "12:30:59", "123059"),
        ("StudyTime", "99", ""),
    ],
)
def test_invalid_values_are_mapped_or_left_blank_and_said(
    keyword: str, value: str, expected: str
) -> None:
    scan = scan_with(**{keyword: value})
    source = prepare(scan)
    assert source.headers[0][keyword].value == expected
    assert len(source.findings) == 1
    assert source.findings[0].startswith(f"{keyword} of the source")


def test_an_invalid_birth_date_is_identity_and_copied_as_it_is() -> None:
    source = prepare(raw("PatientBirthDate", b"unknown", b"ISO_IR 100"))
    assert source.identity.PatientBirthDate == "unknown"
    assert source.headers[0].PatientBirthDate == "", "highdicom would not take it"


def test_incomplete_code_sequences_are_left_out() -> None:
    item = Dataset()
    item.CodeValue = "X"
    source = prepare(scan_with(ProcedureCodeSequence=[item]))
    assert "ProcedureCodeSequence" not in source.headers[0]
    assert "ProcedureCodeSequence" in source.findings[0]


def test_de_identification_and_requests_travel_and_procedure_steps_do_not() -> None:
    request = Dataset()
    request.RequestedProcedureID = "RP1"
    source = prepare(
        scan_with(
            PatientIdentityRemoved="YES",
            DeidentificationMethod="by hand",
            RequestAttributesSequence=[request],
            PerformedProcedureStepID="PPS1",
            TimezoneOffsetFromUTC="+0200",
        )
    )
    assert source.headers[0].DeidentificationMethod == "by hand"
    assert [item.RequestedProcedureID for item in source.requests] == ["RP1"]
    assert "PerformedProcedureStepID" not in source.headers[0]
    assert source.extra.TimezoneOffsetFromUTC == "+0200"


@pytest.mark.parametrize(
    ("character_set", "name", "result"),
    [
        (b"ISO_IR 100", "Müller^Jürgen".encode("latin-1"), "ISO_IR 100"),
        (b"ISO_IR 192", "Müller^Jürgen".encode(), "ISO_IR 192"),
        (b"ISO IR 100", "Müller^Jürgen".encode("latin-1"), "ISO_IR 100"),
        (b"GB18030", "王^小东".encode("gb18030"), "GB18030"),
        (b"wrong", b"Miller^John", "ISO_IR 192"),
        (b"", b"Miller^John", "ISO_IR 192"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "ISO_IR 192"),
    ],
)
def test_text_survives_in_a_valid_character_set(
    character_set: bytes, name: bytes, result: str
) -> None:
    source = prepare(raw("PatientName", name, character_set))
    assert source.headers[0].SpecificCharacterSet == result
    if result != "ISO_IR 192":
        assert written_name(source) == name
    if b"\x1b" in name:
        assert written_name(source).decode() == "Yamada^Tarou=山田^太郎"


def test_undeclared_bytes_are_copied_byte_for_byte() -> None:
    name = "Müller^Jürgen".encode("latin-1")
    source = prepare(raw("PatientName", name, None))
    assert "SpecificCharacterSet" not in source.headers[0]
    assert written_name(source) == name


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (b"ISO_IR 192", "Müller".encode("latin-1")),
        (b"nonsense", "Müller".encode("latin-1")),
        (b"ISO_IR 100", b"Yamada=\x1b$B;3ED\x1b(B"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(character_set: bytes, name: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        prepare(raw("PatientName", name, character_set))
    assert caught.value.code == "BAD_CHARACTER_SET"
    assert "ller" not in caught.value.detail


def test_other_text_that_cannot_be_read_is_left_out() -> None:
    source = prepare(raw("StudyDescription", "Schädel".encode("latin-1"), b"ISO_IR 192"))
    assert "StudyDescription" not in source.headers[0]
    assert "StudyDescription" in source.findings[0]


def test_all_slices_share_one_orientation_and_keep_their_positions() -> None:
    source = prepare(scan_with())
    positions = [float(header.ImagePositionPatient[2]) for header in source.headers]
    assert positions == [0, 1, 2, 3, 4]
    assert len({str(header.ImageOrientationPatient) for header in source.headers}) == 1
    assert all(header.SliceThickness == "1" for header in source.headers)


@pytest.mark.parametrize("thickness", [None, "0", ""])
def test_a_missing_slice_thickness_becomes_the_spacing(thickness: str | None) -> None:
    source = prepare(scan_with(SliceThickness=thickness))
    assert source.headers[0].SliceThickness == "1"
