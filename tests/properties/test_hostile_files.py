"""Damaged and hostile data sets: a header or a clear refusal, in bounded time and memory.

`make fuzz` runs the same with many more examples.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import damage
import pytest
from damage import DATA_SETS, Edit, as_file, damaged, edits, encapsulated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_ct import encoded, instance

from dicomnode import instances
from dicomnode.domain.reasons import REASONS
from dicomnode.domain.records import Header
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.instances import UnreadableError

KEY = b"key of the patient"
HEADER_REGION = 4096
LIMIT_SECONDS = 30.0
"""For one file, on a machine that is busy with other things; alone it is far below one."""
MAX_INFLATED = 1 << 26
"""Of the receiver, lowered so that the test is quick."""
FUZZ = int(os.environ.get("DICOMNODE_FUZZ_EXAMPLES", "0"))
fuzz = settings(
    max_examples=FUZZ or 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
pytestmark = pytest.mark.filterwarnings("ignore")


def header_of(data: bytes, syntax: str) -> str:
    """Read a header as the receiver does; return what came of it."""
    started = time.monotonic()
    try:
        header = instances.read_header(data, syntax, KEY)
    except UnreadableError as error:
        assert str(error).isprintable()
        return str(error)
    finally:
        assert time.monotonic() - started < LIMIT_SECONDS
    for uid in (header.study_uid, header.series_uid, header.sop_instance_uid):
        assert 0 < len(uid) <= 64
        assert set(uid) <= set("0123456789.")
    assert len(header.series_description) <= 64
    assert header.series_description.isprintable()
    return "read"


def scan_of(files: Sequence[bytes]) -> str:
    """Make a scan as the worker does; return what came of it."""
    started = time.monotonic()
    try:
        scan = read_scan(files, threads=1)
    except Refusal as refusal:
        assert refusal.code in REASONS
        return refusal.code
    finally:
        assert time.monotonic() - started < LIMIT_SECONDS
    assert scan.volume.ndim == 3
    return "read"


# Real files, damaged


@cache
def real_files(folder: Path) -> tuple[bytes, ...]:
    paths = [
        *sorted((folder / "transfer-syntaxes").iterdir()),
        *sorted((folder / "odd").iterdir()),
        *sorted((folder / "crlm-ct-1004/image").iterdir())[:1],
        *sorted((folder / "totalsegmentator/example_ct_dicom").glob("*.dcm"))[:1],
    ]
    return tuple(path.read_bytes() for path in paths)


@fuzz
@given(number=st.integers(0, 1000), changes=edits)
def test_a_damaged_header_is_read_or_refused(
    test_data: Path, number: int, changes: list[Edit]
) -> None:
    files = real_files(test_data)
    whole = files[number % len(files)]
    try:
        syntax, start = instances.split_file(whole)
    except UnreadableError:
        return
    data = damaged(whole[start:], changes, HEADER_REGION)
    if header_of(data, syntax) == "read":
        expected = read_by_pydicom(data, syntax)
        # Within items whose lengths are stated only pydicom looks, and only if it has to.
        assert expected is None or instances.read_header(data, syntax, KEY) == expected


def read_by_pydicom(data: bytes, syntax: str) -> Header | None:
    """Read a header without the help of our own scanner."""
    reader = instances.Headers(KEY).begin(syntax)
    reader._scanner.gave_up = True
    reader.feed(data)
    try:
        return reader.finish(lambda: BytesIO(data))[0]
    except UnreadableError:
        return None


@fuzz
@given(number=st.integers(0, 1000), changes=edits, whole_file=st.booleans())
def test_a_damaged_file_is_analysed_or_refused(
    test_data: Path, number: int, changes: list[Edit], whole_file: bool
) -> None:
    files = real_files(test_data)
    whole = files[number % len(files)]
    data = damaged(whole, changes, len(whole) if whole_file else HEADER_REGION)
    try:
        instances.split_file(data)
    except UnreadableError as error:
        assert str(error).isprintable()
    scan_of([data])


# A whole small series, one of it damaged


def series(syntax: str = damage.EXPLICIT, **changes: Any) -> list[bytes]:
    return [
        as_file(
            encoded(
                instance(
                    SOPInstanceUID=f"1.2.3.{number}",
                    ImageType=["ORIGINAL", "PRIMARY", "AXIAL"],
                    ImagePositionPatient=[0, 0, number],
                    **changes,
                ),
                syntax,
            ),
            syntax,
            f"1.2.3.{number}",
        )
        for number in range(6)
    ]


@fuzz
@given(
    number=st.integers(0, 5),
    changes=edits,
    syntax=st.sampled_from([damage.EXPLICIT, damage.IMPLICIT, damage.BIG_ENDIAN, damage.DEFLATED]),
)
def test_a_damaged_slice_does_not_bring_down_its_series(
    number: int, changes: list[Edit], syntax: str
) -> None:
    files = series(syntax)
    files[number] = damaged(files[number], changes, len(files[number]))
    scan_of(files)


def test_the_undamaged_series_is_read() -> None:
    assert scan_of(series()) == "read"
    assert scan_of(series(damage.DEFLATED)) == "read"


# Hostile on purpose


@pytest.fixture(scope="module")
def came() -> dict[str, str]:
    """What came of the functions below, in a process of its own: its memory is looked at."""
    program = rf"""
        import json, re, sys, warnings
        warnings.simplefilter("ignore")
        sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
        import test_hostile_files as tests
        came = {{each.__name__: each() for each in tests.BOUNDED}}
        # Not getrusage: its peak counts the process that this one was started from as well.
        status = open("/proc/self/status").read()
        came["megabytes"] = str(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024)
        print(json.dumps(came))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30)),
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def hostile_headers() -> str:
    return " ".join(
        "1" if header_of(make(), syntax) == "read" else "0"
        for name, (syntax, make) in DATA_SETS.items()
        if "bomb" not in name
    )


def hostile_scans() -> str:
    """Each hostile data set among five good slices, and by itself."""
    good = series()[:5]
    found = []
    for name, (syntax, make) in DATA_SETS.items():
        if "bomb" not in name:
            found.append(scan_of([*good, as_file(make(), syntax, "1.2.3.9")]))
    return " ".join(found)


def hostile_images() -> str:
    """Images of 8 GiB, and ten million frames, in a few bytes."""
    found = []
    fragments = {
        damage.RLE: damage.RLE_HEADER,
        damage.J2K: damage.J2K_HEADER,
        damage.JPEG_LS: damage.JPEG_LS_HEADER,
        damage.EXPLICIT: None,
    }
    shapes = ({"Rows": 65535, "Columns": 65535}, {"Rows": 20000, "Columns": 20000}, {})
    for syntax, fragment in fragments.items():
        for shape in (*shapes, {"NumberOfFrames": 10**7}):
            files = series(PixelData=None if fragment else bytes(32), **shape)
            if fragment:
                pixels = encapsulated(fragment)
                files = [
                    as_file(file[instances.split_file(file)[1] :] + pixels, syntax, f"1.2.3.{n}")
                    for n, file in enumerate(files)
                ]
            found.append(scan_of(files))
    return " ".join(found)


def bombs_in_headers() -> str:
    instances.reading.MAX_INFLATED = MAX_INFLATED
    return "; ".join(
        header_of(make(), syntax) for name, (syntax, make) in DATA_SETS.items() if "bomb" in name
    )


def bombs_in_files() -> str:
    """Without a preamble, as a file from a folder may be; then pydicom would inflate it."""
    return " ".join(
        scan_of([as_file(make(), syntax)[132:]])
        for name, (syntax, make) in DATA_SETS.items()
        if "bomb" in name
    )


BOUNDED = (hostile_headers, hostile_scans, hostile_images, bombs_in_files, bombs_in_headers)


def test_hostile_data_sets_get_a_header_or_a_refusal(came: dict[str, str]) -> None:
    headers = came["hostile_headers"].split()
    assert len(headers) == len(DATA_SETS) - 2
    assert {"0", "1"} == set(headers)


def test_hostile_data_sets_are_analysed_or_refused(came: dict[str, str]) -> None:
    assert set(came["hostile_scans"].split()) <= {*REASONS, "read"}


def test_images_that_say_they_are_huge_are_refused(came: dict[str, str]) -> None:
    images = came["hostile_images"].split()
    assert set(images) <= {"UNDECODABLE", "NO_POSITION", "read"}
    assert images.count("UNDECODABLE") >= 9


def test_a_bomb_is_not_inflated_without_bound(came: dict[str, str]) -> None:
    """1200 MB of zeros in 1.2 MB."""
    assert len(damage.bomb(damage.BOMB_MEGABYTES, in_pixels=True)) < 2_000_000
    assert came["bombs_in_files"] == "UNPARSEABLE UNPARSEABLE"
    assert came["bombs_in_headers"].count("the deflated data set is larger than") == 2


def test_none_of_it_takes_much_memory(came: dict[str, str]) -> None:
    assert int(came["megabytes"]) < 1000
