"""A data set whose layout is known is read as one whose layout is not."""

from __future__ import annotations

import random
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from header_kit import DATASETS, KEY, real_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import encoded, instance

from dicomnode.domain.records import Header
from dicomnode.instances import Headers, UnreadableError, split_file
from dicomnode.instances.layouts import KEPT_LAYOUTS, MAX_FIXED, Layouts
from dicomnode.instances.scanning import Scanner

PIXELS = 32
"""Bytes of them in each data set."""
PLAIN = re.compile("plain|nested|undefined")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def read(headers: Headers, data: bytes, syntax: str) -> tuple[Header, str] | str:
    reader = headers.begin(syntax)
    reader.feed(memoryview(data))
    try:
        return reader.finish(lambda: BytesIO(data))
    except UnreadableError as error:
        return str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(sorted(DATASETS)))
def test_what_was_met_before_changes_nothing(data: Any, name: str) -> None:
    whole, syntax = DATASETS[name]
    headers = Headers(KEY)
    read(headers, whole, syntax)
    for _ in range(data.draw(st.integers(1, 4))):
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(changed) - 1))
            piece = data.draw(st.binary(min_size=1, max_size=6))
            gone = data.draw(st.sampled_from((len(piece), len(piece), 0, 6)))
            changed[place : place + gone] = piece
        if data.draw(st.booleans()):
            del changed[data.draw(st.integers(0, len(changed))) :]
        sent = bytes(changed)
        assert read(headers, sent, syntax) == read(Headers(KEY), sent, syntax)


@pytest.mark.parametrize("name", [name for name in DATASETS if re.search("rich|undefined", name)])
def test_no_byte_of_a_header_is_taken_for_that_of_another(name: str) -> None:
    whole, syntax = DATASETS[name]
    headers = Headers(KEY)
    for place in range(len(whole) - PIXELS):
        for bit in (0x01, 0x08):  # another digit or letter, another length
            changed = bytearray(whole)
            changed[place] ^= bit
            sent = bytes(changed)
            read(headers, whole, syntax)
            assert read(headers, sent, syntax) == read(Headers(KEY), sent, syntax), hex(place)


def test_real_files_are_read_alike_whatever_came_before(test_data: Path) -> None:
    """In turn and shuffled, through one reader: each as if it were the only one."""
    headers, followed = Headers(KEY), 0
    follow = Scanner.follow

    def counted(*arguments: Any) -> None:
        nonlocal followed
        followed += 1
        follow(*arguments)

    files = [path.read_bytes() for path in real_files(test_data)]
    files += [path.read_bytes() for path in sorted((test_data / "crlm-ct-1004").rglob("*.dcm"))]
    random.Random(4).shuffle(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scanner, "follow", counted)
        for data in files:
            try:
                syntax, start = split_file(data)
            except UnreadableError:
                continue
            sent = data[start:]
            assert read(headers, sent, syntax) == read(Headers(KEY), sent, syntax)
    assert followed > 20


@pytest.mark.parametrize("name", [name for name in DATASETS if PLAIN.match(name)])
def test_the_next_instance_of_a_series_is_not_walked_through(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, syntax = DATASETS[name]
    headers = Headers(KEY)
    first = read(headers, data, syntax)
    monkeypatch.setattr(Scanner, "feed", None)
    assert read(headers, data, syntax) == first


def test_a_layout_is_only_taken_where_all_of_its_bytes_have_come() -> None:
    data, syntax = DATASETS["plain Explicit VR Little Endian"]
    headers = Headers(KEY)
    first = read(headers, data, syntax)
    reader = headers.begin(syntax)
    for start in range(0, len(data), 100):
        reader.feed(data[start : start + 100])
    assert reader.finish(lambda: BytesIO(data)) == first


def test_few_layouts_are_kept_and_none_that_is_large() -> None:
    layouts = Layouts()
    for number in range(2 * KEPT_LAYOUTS):
        data = encoded(instance(PatientName="A" * (2 * number + 2)))
        scanner = Scanner(explicit=True)
        scanner.feed(data)
        found = scanner.layout(data, ())
        assert found is not None
        layouts.add(found)
        assert layouts.find(data, explicit=True) is found
        assert layouts.find(data, explicit=False) is None
    assert len(layouts._kept) == KEPT_LAYOUTS
    scanner = Scanner(explicit=True)
    data = b"".join(
        tag.to_bytes(2, "little") + b"\x10\x00LO\x00\x00" for tag in range(1, 2 * MAX_FIXED // 8, 2)
    )
    data += bytes.fromhex("e07f1000") + b"OW\0\0" + bytes(4)
    scanner.feed(data)
    assert scanner.pixels_at == len(data) and scanner.layout(data, ()) is None


def test_a_header_that_is_not_whole_has_no_layout() -> None:
    scanner = Scanner(explicit=True)
    data = encoded(instance())
    scanner.feed(data[:200])
    scanner.feed(data[200:])
    assert scanner.layout(data[:200], ()) is None
    long = encoded(instance(RedPaletteColorLookupTableData=bytes(20_000)), ExplicitVRLittleEndian)
    scanner = Scanner(explicit=True)
    scanner.feed(long)
    assert scanner.pixels_at is not None and scanner.layout(long, ()) is None
