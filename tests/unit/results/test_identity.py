"""Identity in another value representation is refused: what it says is anybody's guess."""

from __future__ import annotations

import numpy as np
import pytest

from dicomnode.demo.series import write_series
from dicomnode.errors import Refusal
from dicomnode.imaging import read_scan
from dicomnode.results import prepare

HU = np.zeros((12, 10, 5), np.int16)
FILES = write_series(HU, np.diag([-2.0, -2.0, 3.0, 1.0]))


@pytest.mark.parametrize("written", [b"US", b"SS", b"AT"])
@pytest.mark.parametrize(
    ("tag", "representation"),
    [
        (b"\x10\x00\x10\x00", b"PN"),
        (b"\x10\x00\x20\x00", b"LO"),
        (b"\x10\x00\x30\x00", b"DA"),
        (b"\x08\x00\x50\x00", b"SH"),
    ],
)
def test_identity_that_is_no_text_is_refused(
    tag: bytes, representation: bytes, written: bytes
) -> None:
    files = [data.replace(tag + representation, tag + written) for data in FILES]
    assert files != FILES
    with pytest.raises(Refusal) as caught:
        prepare(read_scan(files))
    assert caught.value.code == "INVALID_IDENTIFIERS"
    assert f"is written as {written.decode()} instead of" in caught.value.detail


def test_identity_as_it_should_be_is_taken() -> None:
    assert prepare(read_scan(FILES)).headers[0].PatientID
