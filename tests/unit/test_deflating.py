"""An instance deflated and inflated is the same instance, in flat memory."""

from __future__ import annotations

import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import image, written
from pydicom.uid import (
    UID,
    CTImageStorage,
    ImplicitVRLittleEndian,
    RLELossless,
    SegmentationStorage,
)

from dicomnode.deflating import DEFLATED, EXPLICIT, transcode, transfer_syntaxes
from dicomnode.domain.identifiers import SOPClassUID, TransferSyntaxUID
from dicomnode.instances.files import split_file

SEGMENTATION = SOPClassUID(str(SegmentationStorage))


def file_of(cells: np.ndarray) -> bytes:
    """A file with the File Meta Information of this software's results."""
    data = written(image(cells))
    return _again(data, EXPLICIT)


def _again(data: bytes, syntax: str) -> bytes:
    from dicomnode.instances.files import file_prefix

    dataset = pydicom.dcmread(BytesIO(data))
    return (
        file_prefix(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax)
        + data[split_file(data)[1] :]
    )


def test_there_and_back_is_the_same_file(tmp_path: Path) -> None:
    original, small, back = (tmp_path / name for name in ("a", "b", "c"))
    cells = np.random.default_rng(0).integers(0, 4, (700, 900), dtype=np.int16)
    original.write_bytes(file_of(cells))

    transcode(original, small, DEFLATED)
    transcode(small, back, EXPLICIT)

    assert back.read_bytes() == original.read_bytes()
    assert small.stat().st_size < original.stat().st_size / 4
    syntax, start = split_file(small.read_bytes())
    assert syntax == DEFLATED
    assert (small.stat().st_size - start) % 2 == 0
    theirs, ours = pydicom.dcmread(small), pydicom.dcmread(original)
    assert theirs.file_meta.MediaStorageSOPInstanceUID == ours.SOPInstanceUID
    assert theirs == ours


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_any_data_set_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    noise = np.random.default_rng(seed).integers(-999, 999, (rows, columns), dtype=np.int16)
    (folder / "a").write_bytes(file_of(noise))
    transcode(folder / "a", folder / "b", DEFLATED)
    assert folder.joinpath("b").stat().st_size % 2 == split_file((folder / "b").read_bytes())[1] % 2
    transcode(folder / "b", folder / "c", EXPLICIT)
    assert (folder / "c").read_bytes() == (folder / "a").read_bytes()


def test_another_deflater_is_read(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(BytesIO(file_of(np.arange(200, dtype=np.int16).reshape(10, 20))))
    dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
    dataset.save_as(tmp_path / "b")
    transcode(tmp_path / "b", tmp_path / "c", EXPLICIT)
    assert pydicom.dcmread(tmp_path / "c") == dataset


def test_what_is_cut_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(file_of(np.arange(2000, dtype=np.int16).reshape(40, 50)))
    transcode(tmp_path / "a", tmp_path / "b", DEFLATED)
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-200])
    with pytest.raises(zlib.error, match="too early"):
        transcode(tmp_path / "b", tmp_path / "c", EXPLICIT)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless])
def test_other_transfer_syntaxes_are_left_alone(tmp_path: Path, syntax: UID) -> None:
    (tmp_path / "a").write_bytes(_again(file_of(np.zeros((4, 4), np.int16)), str(syntax)))
    with pytest.raises(ValueError, match="cannot be made"):
        transcode(tmp_path / "a", tmp_path / "b", DEFLATED)
    assert transfer_syntaxes(SEGMENTATION, TransferSyntaxUID(str(syntax))) == (str(syntax),)


def test_a_segmentation_goes_out_deflated_if_it_may_and_everything_else_as_it_is() -> None:
    assert transfer_syntaxes(SEGMENTATION, EXPLICIT) == (DEFLATED, EXPLICIT)
    assert transfer_syntaxes(SEGMENTATION, DEFLATED) == (DEFLATED, EXPLICIT)
    assert transfer_syntaxes(SOPClassUID(str(CTImageStorage)), EXPLICIT) == (EXPLICIT,)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    dataset = image(np.zeros((1, 1), np.int16))
    dataset.PixelData = bytes(200 << 20)
    (tmp_path / "a").write_bytes(written(dataset))
    script = (
        "import resource, sys; from pathlib import Path; from dicomnode import deflating as d\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "a, b, c = (Path(sys.argv[1]) / name for name in 'abc')\n"
        "d.transcode(a, b, d.DEFLATED); d.transcode(b, c, d.EXPLICIT)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 20 << 10  # KiB
