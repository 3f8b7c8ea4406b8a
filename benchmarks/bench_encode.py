"""Encoding 104 structures beside plain highdicom and dcmqi: seconds, memory, size, how they grow.

Every contender runs in fresh processes, writes to a file, and is given the same series and labels:
from the label map, in which the structures have to be found, to the file. Of the Python ones only
the encoding is timed, after everything has been imported and read; dcmqi's command reads headers
and labels, too, and its whole time counts. Memory is what the process grew by at most (VmHWM)
beyond the input; of dcmqi it is all.

Fails where BINARY is less than 4 times as fast as plain highdicom, LABELMAP slower than it, the
report of 104 groups takes more than a second, the preview more than five, the deflated file is
larger than 2.5 MB, memory for BINARY grows with the number of frames, or time grows faster than the
number of slices.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from benchmarks.common import machine
from dicomnode.deflating import DEFLATED, transcode
from dicomnode.demo.series import write_series
from dicomnode.domain.alternatives import reports
from dicomnode.domain.plans import Plan
from dicomnode.domain.profiles import PROFILES
from dicomnode.imaging import read_scan
from dicomnode.quiet import quiet_pydicom
from dicomnode.results import Model, encode, labelmap, prepare, seg
from dicomnode.results.codes import load_codes
from dicomnode.results.common import write_whole
from dicomnode.results.headers import Source
from dicomnode.results.references import stand_ins
from dicomnode.results.uids import content_parts, identify
from dicomnode.scan import LabelMap
from inference.catalog import BUNDLED, read_structures
from inference.measuring import measure
from inference.phantom import Body

BINARY_RATIO, LABELMAP_RATIO, REPORT_SECONDS, DEFLATED_MB = 4.0, 1.0, 1.0, 2.5
MORE_MIB, STEEPER = 40.0, 1.25
PREVIEW_SECONDS = 5.0
SLICES, SIDE, STRUCTURES = 300, 512, 104
TRUNK_MM = 810.0
ROUNDS, TURNS = 3, 2
CODES = "total_v1_104"
MODEL = Model(
    id="total-v1",
    title="104 structures of a phantom",
    version="1",
    weights_digest="ab" * 32,
    demonstration=False,
    code_table=CODES,
    structures={},
)
PLAN = Plan(job_id="1", model_id=MODEL.id, analysed_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC))
Encoder = Callable[[Source, LabelMap, Path], None]


def affine_of(slices: int) -> np.ndarray:
    affine = np.diag([-0.8, -0.8, TRUNK_MM / slices, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array([SIDE, SIDE, slices]) - 1) / 2
    return affine


def write_labels(folder: Path, slices: int) -> Path:
    """Write the phantom's labels [slice, row, column], with every structure in them."""
    labels = Body(3).render((SIDE, SIDE, slices), affine_of(slices))[1].transpose(2, 1, 0)
    labels = np.ascontiguousarray(labels)
    missing = set(range(1, STRUCTURES + 1)) - set(np.unique(labels).tolist())
    for place, label in enumerate(sorted(missing)):
        labels[10:12, 5:9, 9 * place + 5 : 9 * place + 9] = label
    path = folder / f"labels{slices}.npy"
    np.save(path, labels)
    return path


# In a process of its own


def ours(*objects: str, forms: bool = False) -> Encoder:
    """Return what encodes these; of the report one form, or all that `pacs` may need."""

    def run(source: Source, labels: LabelMap, folder: Path) -> None:
        numbers = NUMBERS[0] if {"sr", "preview"} & set(objects) else ()
        plan = replace(PLAN, objects=objects, results_folder=str(folder))
        plan = replace(plan, reports=reports([PROFILES["pacs"]]) if forms else ())
        for item in encode(source, labels, MODEL, numbers, plan):
            if item.file is None:
                (folder / item.kind).write_bytes(item.data)

    return run


def plain(kind: seg.SegmentationTypeValues) -> Encoder:
    """What highdicom makes of the arguments that it is given here, too, as pydicom writes it."""
    module, name = (seg, "seg") if kind.name == "BINARY" else (labelmap, "labelmap")

    def run(source: Source, labels: LabelMap, folder: Path) -> None:
        segments = seg.find_segments(source, seg.find_present(labels), MODEL)
        assert [item.label for item in segments] == [item.number for item in segments]
        series_uid = str(source.headers[0].SeriesInstanceUID)
        parts = content_parts(source, labels, MODEL, PLAN)
        uids = identify(name, module.SOP_CLASS_UID, parts, PLAN, series_uid)
        with quiet_pydicom(), (folder / "plain.dcm").open("wb") as file:
            dataset = seg.make_object(
                kind,
                stand_ins(source),
                labels.labels,
                source,
                segments,
                MODEL,
                PLAN,
                uids,
                syntax=ExplicitVRLittleEndian if kind.name == "BINARY" else RLELossless,
            )
            write_whole(file, dataset)

    return run


ENCODERS: Mapping[str, Encoder] = {
    "BINARY": ours("seg"),
    "LABELMAP": ours("labelmap"),
    "BINARY and SR": ours("seg", "sr"),
    "BINARY, SR and preview": ours("seg", "preview", "sr"),
    "BINARY, every SR and preview": ours("seg", "preview", "sr", forms=True),
    "plain BINARY": plain(seg.SegmentationTypeValues.BINARY),
    "plain LABELMAP": plain(seg.SegmentationTypeValues.LABELMAP),
}
NUMBERS: list[tuple[object, ...]] = []


@dataclass(frozen=True, kw_only=True)
class Measured:
    seconds: float
    mib: float
    size_mb: float


def status(name: str) -> float:
    """MiB of a line of this process's status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def run_one(name: str, path: Path, rounds: int) -> None:
    """Encode so often, and print what it took."""
    labels = np.load(path)
    scan = read_scan(write_series(np.zeros(labels.shape[::-1], np.int16), affine_of(len(labels))))
    source = prepare(scan)
    if "SR" in name:
        structures = read_structures(BUNDLED / "structures/total_v1_104.csv")
        found = measure(scan.volume, labels, scan.voxel_volumes_mm3, structures, scan.valid)
        NUMBERS.append(tuple(found))
    label_map = LabelMap(labels=labels, source_digest=scan.digest)
    seconds, grown, size = [], [], 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins here (proc(5))
            before, started = status("VmRSS"), time.perf_counter()
            ENCODERS[name](source, label_map, Path(folder))
            seconds.append(time.perf_counter() - started)
            grown.append(status("VmHWM") - before)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
    print(max(grown), size / 1e6, *seconds)


# Around it


def measured(name: str, path: Path, rounds: int = ROUNDS) -> Measured:
    return by_turns(path, **{name: rounds})[name]


def by_turns(path: Path, **rounds: int) -> dict[str, Measured]:
    """Return the median of all rounds; who else uses the machine disturbs everybody alike."""
    runs: dict[str, list[list[float]]] = {name: [] for name in rounds}
    for _ in range(TURNS):
        for name, count in rounds.items():
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.bench_encode", name, str(path), str(count)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            runs[name].append([float(value) for value in done.stdout.split()])
    return {
        name: Measured(
            seconds=statistics.median(value for one in some for value in one[2:]),
            mib=max(one[0] for one in some),
            size_mb=some[0][1],
        )
        for name, some in runs.items()
    }


def show(name: str, one: Measured, than: Measured | None = None) -> None:
    ratio = f"{than.seconds / one.seconds:5.1f}x" if than else "      "
    print(f"  {name:34s} {one.seconds:7.2f} s {ratio} {one.mib:7.0f} MiB {one.size_mb:8.1f} MB")
    sys.stdout.flush()


def write_for_dcmqi(folder: Path, path: Path) -> None:
    """Write the series, the labels as NRRD and dcmqi's description of the segments."""
    labels = np.load(path)
    files = write_series(np.zeros(labels.shape[::-1], np.int16), affine_of(len(labels)))
    (folder / "ct").mkdir()
    for index, data in enumerate(files):
        (folder / "ct" / f"{index}.dcm").write_bytes(data)
    scan = read_scan(files)
    image = sitk.GetImageFromArray(labels)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(scan.affine[:3, 3].tolist())
    image.SetDirection((scan.affine[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    sitk.WriteImage(image, folder / "labels.nrrd")

    def code(value: str, meaning: str) -> dict[str, str]:
        return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}

    segments = [
        {
            "labelID": label,
            "SegmentDescription": row.name,
            "SegmentLabel": row.segment_label,
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": MODEL.id,
            "SegmentedPropertyCategoryCodeSequence": code(row.category.value, row.category.meaning),
            "SegmentedPropertyTypeCodeSequence": code(row.type.value, row.type.meaning),
            "recommendedDisplayRGBValue": [label, 255 - label, 128],
        }
        for label, row in load_codes(CODES).items()
    ]
    described = {
        "ContentCreatorName": "A",
        "SeriesDescription": "S",
        "SeriesNumber": "300",
        "InstanceNumber": "1",
        "segmentAttributes": [segments],
    }
    (folder / "segments.json").write_text(json.dumps(described))


def by_dcmqi(folder: Path, kind: str, rounds: int = 3) -> Measured:
    """The whole command, and its memory: it cannot be told from its input's."""
    program = Path(sys.executable).parent / "itkimage2segimage"
    out = folder / "dcmqi.dcm"
    command = [
        program, "--inputDICOMDirectory", folder / "ct", "--inputImageList", folder / "labels.nrrd",
        "--inputMetadata", folder / "segments.json", "--outputDICOM", out,
        "--segmentationType", kind,
    ]  # fmt: skip
    seconds, peaks = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, code, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - started)
        peaks.append(usage.ru_maxrss / 1024)
        if code:
            raise RuntimeError(f"itkimage2segimage failed: {code}")
    return Measured(
        seconds=statistics.median(seconds), mib=max(peaks), size_mb=out.stat().st_size / 1e6
    )


def deflated(folder: Path, path: Path) -> Measured:
    """What `send` does where an archive accepts it."""
    labels = np.load(path)
    scan = read_scan(write_series(np.zeros(labels.shape[::-1], np.int16), affine_of(len(labels))))
    found = LabelMap(labels=labels, source_digest=scan.digest)
    plan = replace(PLAN, objects=("seg",), results_folder=str(folder))
    (result,) = encode(prepare(scan), found, MODEL, (), plan)
    assert result.file is not None
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        transcode(result.file, folder / "deflated.dcm", DEFLATED)
        seconds.append(time.perf_counter() - started)
    size = (folder / "deflated.dcm").stat().st_size / 1e6
    result.file.unlink()
    return Measured(seconds=statistics.median(seconds), mib=0.0, size_mb=size)


def compare(folder: Path, path: Path) -> list[str]:
    """Print everything of 300 slices; return what is not as it should be."""
    faults = []
    write_for_dcmqi(folder, path)
    print(f"{STRUCTURES} structures, {SIDE}x{SIDE}x{SLICES}; memory beyond the input, size written")
    names = ("BINARY", "BINARY and SR", "BINARY, SR and preview", "BINARY, every SR and preview")
    found = by_turns(path, **{"plain BINARY": 2, **dict.fromkeys(names, ROUNDS)})
    theirs, mine, both, pictured, whole = found.values()
    show("plain highdicom, BINARY", theirs)
    show("dcmqi, BINARY (whole command)", by_dcmqi(folder, "binary"), theirs)
    show("dicomnode, BINARY", mine, theirs)
    small = deflated(folder, path)
    show("  deflating it, as send does", small)
    plain_map, own_map = by_turns(path, **{"plain LABELMAP": ROUNDS, "LABELMAP": ROUNDS}).values()
    show("plain highdicom, LABELMAP", plain_map)
    show("dcmqi, LABELMAP (whole command)", by_dcmqi(folder, "labelmap"), plain_map)
    show("dicomnode, LABELMAP", own_map, plain_map)
    report = both.seconds - mine.seconds
    drawn = pictured.seconds - both.seconds
    print(f"  {'dicomnode, SR of 104 groups':34s} {report:7.2f} s")
    print(f"  {'  every other form for pacs':34s} {whole.seconds - pictured.seconds:7.2f} s")
    print(f"  {'dicomnode, preview':34s} {drawn:7.2f} s")
    if theirs.seconds / mine.seconds < BINARY_RATIO:
        faults.append(f"BINARY is less than {BINARY_RATIO} times as fast as plain highdicom")
    if plain_map.seconds / own_map.seconds < LABELMAP_RATIO:
        faults.append("LABELMAP takes longer than plain highdicom")
    if report > REPORT_SECONDS:
        faults.append(f"the report takes more than {REPORT_SECONDS} s")
    if drawn > PREVIEW_SECONDS:
        faults.append(f"the preview takes more than {PREVIEW_SECONDS} s")
    if small.size_mb > DEFLATED_MB:
        faults.append(f"deflated it is larger than {DEFLATED_MB} MB")
    return faults


def scaling(folder: Path, counts: tuple[int, ...]) -> list[str]:
    """Print how time and memory of BINARY grow; return what is not as it should be."""
    print("BINARY by the number of slices")
    found = []
    for count in counts:
        path = write_labels(folder, count)
        found.append(measured("BINARY", path, 2))
        show(f"{count} slices, {1000 * found[-1].seconds / count:.2f} ms each", found[-1])
        path.unlink()
    first, last = found[0], found[-1]
    faults = []
    if last.seconds / counts[-1] > STEEPER * first.seconds / counts[0]:
        faults.append("time grows faster than the number of slices")
    if last.mib - first.mib > MORE_MIB:
        faults.append("memory grows with the frames")
    return faults


def main() -> None:
    if len(sys.argv) == 4:
        run_one(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        print(machine())
        if sys.argv[1:] == ["long"]:
            path = write_labels(folder, 2000)
            show("2000 slices, BINARY", measured("BINARY", path, 1))
            show("2000 slices, BINARY, SR, preview", measured("BINARY, SR and preview", path, 1))
            return
        faults = compare(folder, write_labels(folder, SLICES))
        faults += scaling(folder, (200, 400, 800))
    print("; ".join(faults) or "within all bounds")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
