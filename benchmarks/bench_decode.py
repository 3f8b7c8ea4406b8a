"""From the files of a series to HU: seconds beside SimpleITK's GDCM reader, and memory.

Both read the same files, which lie in the page cache, in one run by turns; SimpleITK is told the
names in their order, and the time it needs to find that is not counted. Fails where the series of
300 slices is read less than 2.5 times as fast, or where memory beyond the input goes over 1.5 times
the volume.
"""

from __future__ import annotations

import copy
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from enhanced_ct import enhanced
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from benchmarks.common import machine
from dicomnode.demo.series import write_series
from dicomnode.imaging import read_scan
from dicomnode.imaging.regular import regular_grid

RATIO, MEMORY = 2.5, 1.5
ROUNDS = 7
DATA = Path(os.environ.get("DICOMNODE_TEST_DATA", Path(__file__).parents[2] / "shared/data"))
ENCODERS = {
    JPEG2000Lossless: lambda cells: imagecodecs.jpeg2k_encode(cells, codecformat="j2k"),
    HTJ2KLossless: imagecodecs.htj2k_encode,
    JPEGLSLossless: lambda cells: imagecodecs.jpegls_encode(cells.view(np.uint16)),
    JPEGLosslessSV1: lambda cells: imagecodecs.jpeg8_encode(cells.view(np.uint16), lossless=True),
}


def originals() -> tuple[str, list[bytes]]:
    """Return real slices of 512x512 where there are some, else slices of noise."""
    folder = DATA / "crlm-ct-1004/image"
    if folder.is_dir():
        return "real GE slices", [path.read_bytes() for path in sorted(folder.iterdir())]
    noise = np.random.default_rng(0).integers(-1000, 1500, (512, 512, 40), dtype=np.int16)
    return "slices of noise", write_series(noise, np.diag([-0.8, -0.8, 1.0, 1.0]))


def restacked(files: list[bytes], count: int) -> Iterator[pydicom.Dataset]:
    """Yield slices one above the other, as often as it takes."""
    for index in range(count):
        dataset = pydicom.dcmread(BytesIO(files[index % len(files)]))
        dataset.SOPInstanceUID = f"2.25.{index + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.ImagePositionPatient = [-200, -200, index - 500]
        dataset.InstanceNumber = index + 1
        yield dataset


def write(folder: Path, datasets: Iterator[pydicom.Dataset]) -> list[Path]:
    folder.mkdir()
    paths = []
    for index, dataset in enumerate(datasets):
        path = folder / f"{index * 7919 % 100003:06d}.dcm"  # in no order
        dataset.save_as(path)
        paths.append(path)
    return paths


def compressed(datasets: Iterator[pydicom.Dataset], syntax: str) -> Iterator[pydicom.Dataset]:
    for dataset in datasets:
        cells = np.ascontiguousarray(dataset.pixel_array)
        dataset.PixelData = encapsulate([bytes(ENCODERS[syntax](cells))])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
        yield dataset


def write_multiframe(path: Path, files: list[bytes], count: int) -> None:
    """Write an Enhanced CT instance of so many frames, one above the other."""
    dataset = pydicom.dcmread(BytesIO(enhanced(files)))
    own = list(dataset.PerFrameFunctionalGroupsSequence)
    groups = [copy.deepcopy(own[index % len(own)]) for index in range(count)]
    for index, group in enumerate(groups):
        group.PlanePositionSequence[0].ImagePositionPatient = [-200, -200, index - 500]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.NumberOfFrames = count
    frame = len(dataset.PixelData) // len(own)
    cells = dataset.PixelData * (count // len(own) + 1)
    dataset.PixelData = cells[: count * frame]
    dataset.save_as(path)


def by_turns(*actions: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Return the median seconds of each action; the first round does not count."""
    taken: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 1):
        for action, seconds in zip(actions, taken, strict=True):
            started = time.perf_counter()
            action()
            if number:
                seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in taken]


def by_simpleitk(paths: list[Path]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def speed(folder: Path, files: list[bytes]) -> float:
    paths = write(folder, restacked(files, 300))
    data = [path.read_bytes() for path in paths]
    theirs = sitk.GetArrayFromImage(by_simpleitk(paths))
    same = np.array_equal(read_scan(paths).volume, np.maximum(theirs, -1024))
    itk, ours, held, parse_only = by_turns(
        lambda: by_simpleitk(paths),
        lambda: read_scan(paths),
        lambda: read_scan(data),
        lambda: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)),
    )
    print(f"300 slices, uncompressed; voxels equal: {same}")
    print(f"  SimpleITK            {itk:6.3f} s  (and {parse_only:.3f} s to find the order)")
    print(f"  dicomnode, files     {ours:6.3f} s  {itk / ours:4.1f}x")
    print(f"  dicomnode, bytes     {held:6.3f} s  {itk / held:4.1f}x", flush=True)
    return itk / ours if same else 0.0


def speed_compressed(folder: Path, files: list[bytes]) -> None:
    for syntax in ENCODERS:
        paths = write(folder / syntax, compressed(restacked(files, 60), syntax))
        one, ours = by_turns(
            lambda p=paths: read_scan(p, 1), lambda p=paths: read_scan(p), rounds=3
        )
        line = f"60 slices, {syntax.name}: one thread {one:.2f} s, all {ours:.2f} s"
        if syntax != HTJ2KLossless:  # GDCM does not know it
            (itk,) = by_turns(lambda paths=paths: by_simpleitk(paths), rounds=1)
            line += f", SimpleITK {itk:.2f} s ({itk / ours:.1f}x)"
        print(line, flush=True)


@contextmanager
def watched() -> Iterator[Callable[[], float]]:
    """Yield a function that returns by how many MiB this process's own memory grew at most.

    Pages of mapped files are the page cache's: they are not counted.
    """
    started, peak, stop = _own_mib(), [0.0], threading.Event()

    def look() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], _own_mib() - started)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stop.set()
        thread.join()


def _own_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def measure_memory(kind: str, folder: Path) -> None:
    """In a process of its own: read a folder, and print what it took."""
    paths = sorted(folder.iterdir())
    sources = [path.read_bytes() for path in paths] if kind == "bytes" else paths
    with watched() as grown:
        started = time.perf_counter()
        scan = read_scan(sources)
        seconds = time.perf_counter() - started
        beyond = grown()
    volume = scan.volume.nbytes / 2**20
    print(f"{beyond / volume:.3f}")
    print(
        f"{len(scan.sources)} slices, {kind}: {seconds:.2f} s; {beyond:.0f} MiB beyond the input"
        f" for a volume of {volume:.0f} MiB: {beyond / volume:.2f} times; regular:"
        f" {scan.is_regular}"
    )
    if kind == "resampled":
        with watched() as grown:
            started = time.perf_counter()
            grid = regular_grid(scan)
            seconds = time.perf_counter() - started
            print(
                f"  on a regular grid of {grid.volume.nbytes / 2**20:.0f} MiB: {seconds:.1f} s,"
                f" {grown():.0f} MiB more"
            )


def memory(kind: str, folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_decode", kind, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    factor, said = done.stdout.split("\n", 1)
    print(said.rstrip(), flush=True)
    return float(factor)


def main() -> None:
    if len(sys.argv) == 3:
        measure_memory(sys.argv[1], Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        kind, files = originals()
        print(f"{machine()}\n{kind}")
        ratio = speed(folder / "300", files)
        (folder / "compressed").mkdir()
        speed_compressed(folder / "compressed", files)
        factors = [memory(kind, folder / "300") for kind in ("files", "bytes")]
        long = write(folder / "2000", restacked(files, 2000))
        factors += [memory(kind, folder / "2000") for kind in ("files", "bytes")]
        (folder / "frames").mkdir()
        write_multiframe(folder / "frames/one.dcm", files, 2000)
        print("one multi-frame instance of as many:")
        factors.append(memory("files", folder / "frames"))
        long[1000].unlink()
        print("one slice missing:")
        factors.append(memory("resampled", folder / "2000"))
    print(f"{ratio:.1f} times as fast as SimpleITK, at least {RATIO} are asked for")
    print(f"at most {max(factors):.2f} times the volume, {MEMORY} are allowed")
    sys.exit(ratio < RATIO or max(factors) > MEMORY)


if __name__ == "__main__":
    main()
