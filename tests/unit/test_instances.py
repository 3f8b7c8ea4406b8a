"""What admission reads from an instance's bytes: real files, and hostile ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from small_ct import CT, encoded, instance

from dicomnode import instances
from dicomnode.domain.identifiers import TransferSyntaxUID
from dicomnode.domain.plans import MANUFACTURER
from dicomnode.domain.records import Header
from dicomnode.instances import UnreadableError, file_prefix, read_header, same_image, split_file

# pydicom warns of what is odd; the node silences it, because it quotes values.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

KEY = b"k" * 32
LOSSY = ("4.50", "4.51", "4.53", "4.55", "4.81", "4.91")
"""JPEG baseline, extended and progressive, JPEG-LS near lossless, JPEG 2000."""


def header(syntax: str = ExplicitVRLittleEndian, *, key: bytes = KEY, **changes: Any) -> Header:
    return read_header(encoded(instance(**changes), syntax), syntax, key)


# What is read


def test_what_admission_and_the_rules_need() -> None:
    found = header()
    assert (found.study_uid, found.series_uid, found.sop_instance_uid, found.sop_class_uid) == (
        "1.2",
        "1.2.3",
        "1.2.3.4",
        CT,
    )
    assert (found.modality, found.series_number, found.series_description) == (
        "CT",
        3,
        "Thorax 1.0",
    )
    assert (found.body_part, found.slice_thickness_mm) == ("CHEST", 1.5)
    assert found.transfer_syntax_uid == ExplicitVRLittleEndian
    assert found.pixel_digest == blake3(np.arange(16, dtype="<u2").tobytes()).hexdigest()
    assert not found.made_by_this_software


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_the_encoding_changes_nothing_but_the_encoded_pixels(syntax: str) -> None:
    # pydicom writes the pixels' bytes as they are, whatever the byte order.
    assert header(syntax) == replace(header(), transfer_syntax_uid=TransferSyntaxUID(syntax))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Modality": None, "SeriesNumber": None, "SliceThickness": None}, ("", None, None)),
        ({"Modality": "", "SeriesNumber": "", "SliceThickness": ""}, ("", None, None)),
        ({"Modality": "ct", "SliceThickness": "0"}, ("ct", 3, 0.0)),
    ],
)
def test_what_is_not_said_is_nothing(changes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = header(**changes)
    assert (found.modality, found.series_number, found.slice_thickness_mm) == expected


def _patched(old: bytes, new: bytes) -> bytes:
    data = encoded(instance())
    assert data.count(old) == 1
    assert len(old) == len(new)
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        (b"Thorax 1.0", b"A\x1b[31m\n\0\\B", "series_description", None),
        (b"CT", b"\0\0", "modality", ""),
        (b"CHEST ", b"\xff\xfe\x80   ", "body_part", None),
        (b"\x02\x001.5 "[2:], b"nan ", "slice_thickness_mm", None),
        (b"1.5 ", b"1e99", "slice_thickness_mm", None),
        (b"1.5 ", b"abc ", "slice_thickness_mm", None),
    ],
)
def test_odd_values_are_made_harmless(old: bytes, new: bytes, field: str, value: Any) -> None:
    found = getattr(read_header(_patched(old, new), ExplicitVRLittleEndian, KEY), field)
    if value is not None or found is None:
        assert found == value
    else:
        assert found.isprintable()


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
@pytest.mark.parametrize("value", [None, "", "../../x", "1.2/3", "9" * 65, "PATIENT^NAME"])
def test_without_its_uids_an_instance_is_unreadable(keyword: str, value: str | None) -> None:
    with pytest.raises(UnreadableError, match=keyword) as error:
        header(**{keyword: value})
    assert "PATIENT" not in str(error.value)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize(
    "data", [b"", b"\0", b"DICM", b"\0" * 1000, b"\xff" * 1000, b"GET / HTTP/1.1\r\n"]
)
def test_garbage_is_unreadable(data: bytes, syntax: str) -> None:
    with pytest.raises(UnreadableError):
        read_header(data, syntax, KEY)


def test_another_transfer_syntax_than_said_is_never_half_read() -> None:
    data = encoded(instance())
    for syntax in (ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        with pytest.raises(UnreadableError):
            read_header(data, syntax, KEY)


# Digests


def test_the_identity_is_keyed() -> None:
    one, other = header(), header(key=b"o" * 32)
    assert one.patient_key != other.patient_key
    assert one.identity_digest != other.identity_digest
    assert one.geometry_digest == other.geometry_digest
    for digest in (one.patient_key, one.identity_digest):
        assert len(digest) == 64
        assert "4711" not in digest


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientID": "4711  "},
        {"PatientID": " 4711"},
        {"PatientName": "Müller^Jörg^^^"},
        {"PatientName": "Müller^Jörg "},
        {"SpecificCharacterSet": "ISO_IR 192"},
        {"IssuerOfPatientID": ""},
        {"SeriesDescription": "other", "SliceThickness": 9},
    ],
)
def test_padding_and_character_sets_are_no_other_identity(changes: dict[str, Any]) -> None:
    """The modality's copy and the archive's always differ in these."""
    assert header(**changes).identity_digest == header().identity_digest
    assert header(**changes).patient_key == header().patient_key


@pytest.mark.parametrize(
    ("changes", "other_patient"),
    [
        ({"PatientID": "4712"}, True),
        ({"PatientID": ""}, True),
        ({"IssuerOfPatientID": "HOSPITAL"}, True),
        ({"PatientName": "Muller^Jörg"}, False),
        ({"PatientBirthDate": "19500102"}, False),
        ({"AccessionNumber": "A2"}, False),
    ],
)
def test_another_identity_has_another_digest(changes: dict[str, Any], other_patient: bool) -> None:
    found = header(**changes)
    assert found.identity_digest != header().identity_digest
    assert (found.patient_key != header().patient_key) == other_patient


def test_values_do_not_run_into_one_another() -> None:
    one = header(PatientID="A", IssuerOfPatientID="BC")
    other = header(PatientID="AB", IssuerOfPatientID="C")
    assert one.patient_key != other.patient_key


@pytest.mark.parametrize(
    "changes",
    [
        {"Rows": 2, "Columns": 8},
        {"PixelSpacing": [0.5, 0.6]},
        {"ImageOrientationPatient": [1, 0, 0, 0, -1, 0]},
        {"ImagePositionPatient": [0, 0, 11]},
        {"FrameOfReferenceUID": "1.2.10"},
        {"RescaleSlope": 2},
        {"RescaleIntercept": 0},
        {"RescaleIntercept": None},
        {"ImagePositionPatient": None},
    ],
)
def test_another_place_or_scale_is_another_geometry(changes: dict[str, Any]) -> None:
    assert header(**changes).geometry_digest != header().geometry_digest


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelSpacing": ["0.50", "0.5000"]},
        {"ImagePositionPatient": ["0", "0.0", "1e1"]},
        {"RescaleSlope": "1.000000"},
        {"WindowCenter": 40},
    ],
)
def test_another_way_to_write_a_number_is_the_same_geometry(changes: dict[str, Any]) -> None:
    assert header(**changes).geometry_digest == header().geometry_digest


def test_our_own_results_are_known_by_their_equipment() -> None:
    item = Dataset()
    item.Manufacturer = MANUFACTURER
    other = Dataset()
    other.Manufacturer = "somebody"
    assert header(ContributingEquipmentSequence=Sequence([other, item])).made_by_this_software
    assert not header(ContributingEquipmentSequence=Sequence([other])).made_by_this_software
    assert not header(Manufacturer=MANUFACTURER).made_by_this_software


# Real files


@pytest.fixture(scope="module")
def syntaxes(test_data: Path) -> dict[str, bytes]:
    """Transfer syntax UID -> DICOM file of one CT slice."""
    files = [path.read_bytes() for path in sorted((test_data / "transfer-syntaxes").glob("*_1.*"))]
    return {split_file(data)[0]: data for data in files}


def header_of(data: bytes) -> Header:
    syntax, start = split_file(data)
    return read_header(data[start:], syntax, KEY)


def test_a_real_series(test_data: Path) -> None:
    headers = [
        header_of(path.read_bytes()) for path in (test_data / "crlm-ct-1004/image").iterdir()
    ]
    assert len({found.sop_instance_uid for found in headers}) == 41
    for field in ("pixel_digest", "geometry_digest"):
        assert len({getattr(found, field) for found in headers}) == 41
    for field in ("study_uid", "series_uid", "patient_key", "identity_digest"):
        assert len({getattr(found, field) for found in headers}) == 1
    assert {(found.modality, found.slice_thickness_mm) for found in headers} == {("CT", 5.0)}


def test_one_slice_has_one_identity_and_geometry_in_every_transfer_syntax(
    syntaxes: dict[str, bytes],
) -> None:
    headers = {syntax: header_of(data) for syntax, data in syntaxes.items()}
    assert len(headers) == 15
    assert {found.transfer_syntax_uid for found in headers.values()} == set(syntaxes)
    # The JPEG processes of 8 and 12 bits had to be rescaled: there the values mean something else.
    rescaled = {syntax for syntax in headers if syntax.endswith(("4.50", "4.51", "4.53", "4.55"))}
    assert len({headers[syntax].geometry_digest for syntax in set(headers) - rescaled}) == 1
    assert len({found.identity_digest for found in headers.values()}) == 1
    plain = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
    assert len({headers[syntax].pixel_digest for syntax in plain}) == 1


@pytest.fixture
def same(tmp_path: Path) -> Callable[[bytes, bytes], bool | None]:
    """Whether two files, given as bytes, have the same pixels."""

    def compare(one: bytes, other: bytes) -> bool | None:
        (tmp_path / "one").write_bytes(one)
        (tmp_path / "other").write_bytes(other)
        return same_image(tmp_path / "one", tmp_path / "other", decode=True)

    return compare


def test_lossless_encodings_have_the_same_pixels_and_lossy_ones_do_not(
    syntaxes: dict[str, bytes], same: Callable[[bytes, bytes], bool | None]
) -> None:
    plain = syntaxes[ExplicitVRLittleEndian]
    verdicts = {syntax: same(plain, data) for syntax, data in syntaxes.items()}
    lossy = {syntax for syntax in syntaxes if syntax.endswith(LOSSY)}
    assert {syntax for syntax, same in verdicts.items() if same is True} == set(syntaxes) - lossy
    # JPEG progressive has no decoder here: nobody can tell.
    assert {verdicts[syntax] for syntax in lossy} <= {False, None}
    assert all(verdicts[syntax] is False for syntax in lossy if syntax.endswith(("4.81", "4.91")))


def test_what_cannot_be_decoded_is_not_called_the_same(
    syntaxes: dict[str, bytes], same: Callable[[bytes, bytes], bool | None]
) -> None:
    plain = syntaxes[ExplicitVRLittleEndian]
    assert same(plain, plain[:-10]) is None
    assert same(plain, b"") is None
    changed = bytearray(plain)
    changed[-1] ^= 1
    assert same(plain, bytes(changed)) is False


def test_odd_files_are_read_or_told(test_data: Path) -> None:
    """Whatever they are, they are no surprise."""
    told: dict[str, str] = {}
    for path in sorted((test_data / "odd").glob("*.dcm")):
        try:
            header_of(path.read_bytes())
        except UnreadableError as error:
            told[path.name] = str(error)
    assert set(told) == {"bad-sequence.dcm"}, told
    folder = test_data / "totalsegmentator" / "example_ct_dicom"
    for path in sorted(folder.iterdir())[:2]:
        with pytest.raises(UnreadableError, match="StudyInstanceUID"):
            header_of(path.read_bytes())


# Files


def test_a_prefix_makes_a_file_of_a_data_set() -> None:
    data = encoded(instance())
    file = file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian) + data
    assert split_file(file) == (ExplicitVRLittleEndian, len(file) - len(data))
    read = pydicom.dcmread(BytesIO(file))
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == "1.2.3.4"
    assert (read.pixel_array == np.arange(16).reshape(4, 4)).all()


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 132, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 64]
)
def test_a_file_without_meta_information_is_told(data: bytes) -> None:
    with pytest.raises(UnreadableError, match="no File Meta Information"):
        split_file(data)


# Hostile bytes


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_data_set_cut_anywhere_is_unreadable_unless_it_is_whole(syntax: str) -> None:
    """Cut within an element it is told; between two elements nobody can see it."""
    nested = Dataset()
    nested.CodeValue = "1"
    nested.CodeMeaning = "x"
    sequence = Sequence([nested, nested])
    dataset = instance(ProcedureCodeSequence=sequence, ContributingEquipmentSequence=sequence)
    for element in ("ProcedureCodeSequence", "ContributingEquipmentSequence"):
        dataset[element].is_undefined_length = True
        for item in dataset[element].value:
            item.is_undefined_length_sequence_item = True
    data = encoded(dataset, syntax)
    read_header(data, syntax, KEY)
    readable = []
    for size in range(len(data)):
        try:
            read_header(data[:size], syntax, KEY)
        except UnreadableError:
            continue
        readable.append(size)
    starts = _element_starts(data, syntax)
    assert set(readable) <= starts, sorted(set(readable) - starts)
    assert len(data) - 16 * 2 - 12 in readable or syntax == ImplicitVRLittleEndian


def _element_starts(data: bytes, syntax: str) -> set[int]:
    buffer = BytesIO(data)
    implicit = syntax == ImplicitVRLittleEndian
    starts = {0}
    for _ in data_element_generator(buffer, implicit, True):
        starts.add(buffer.tell())
    return starts - {len(data)}


def _fuzz(data: bytes, syntax: str) -> None:
    try:
        found = read_header(data, syntax, KEY)
    except UnreadableError as error:
        assert "4711" not in str(error)
        assert "ller" not in str(error)
        return
    for uid in (found.study_uid, found.series_uid, found.sop_instance_uid, found.sop_class_uid):
        assert set(uid) <= set("0123456789.")
    assert len(found.modality) <= 16
    assert found.series_description.isprintable()


SYNTAXES = st.sampled_from(
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), SYNTAXES)
def test_a_changed_data_set_is_read_or_told(data: Any, syntax: str) -> None:
    whole = bytearray(ENCODED[syntax])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        whole[place : place + data.draw(st.integers(0, 8))] = piece
    _fuzz(bytes(whole), syntax)
    _fuzz(bytes(whole[: data.draw(st.integers(0, len(whole)))]), syntax)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200), SYNTAXES)
@example(b"\x08\x00\x18\x00SQ\0\0\xff\xff\xff\xff" * 400, ExplicitVRLittleEndian)
@example(b"\x08\x00\x18\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 2000,
         ExplicitVRLittleEndian)  # fmt: skip
@example(b"\x08\x00\x18\x00UI\xff\xff", ExplicitVRLittleEndian)
@example(b"\x08\x00\x05\x00CS\x04\x00\\\\\\\\", ExplicitVRLittleEndian)
def test_any_bytes_are_read_or_told(data: bytes, syntax: str) -> None:
    _fuzz(data, syntax)


ENCODED: dict[str, bytes] = {
    str(syntax): encoded(instance(), syntax)
    for syntax in (
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    )
}


def test_pixels_shorter_than_they_say_are_told() -> None:
    data = encoded(instance())
    with pytest.raises(UnreadableError, match="says 32 bytes, the data set ends after 31"):
        read_header(data[:-1], ExplicitVRLittleEndian, KEY)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda size: monkeypatch.setattr(instances.reading, "MAX_INFLATED", size)


def test_a_deflate_bomb_is_not_inflated(limit: Callable[[int], None]) -> None:
    limit(1 << 20)
    bomb = deflated(encoded(instance(PixelData=None)) + b"\0" * (64 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(UnreadableError, match="larger than 1048576 bytes"):
        read_header(bomb, DeflatedExplicitVRLittleEndian, KEY)


def test_the_bound_on_deflated_data_leaves_memory_for_others() -> None:
    assert instances.reading.MAX_INFLATED <= 1 << 30


def test_a_deflated_data_set_that_ends_early_is_told() -> None:
    data = deflated(encoded(instance()))
    assert read_header(data + b"\0", DeflatedExplicitVRLittleEndian, KEY).modality == "CT"
    for size in (len(data) - 1, len(data) // 2, 1):
        with pytest.raises(UnreadableError):
            read_header(data[:size], DeflatedExplicitVRLittleEndian, KEY)
