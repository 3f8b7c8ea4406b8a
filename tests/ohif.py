"""OHIF's own decoder of Segmentations, run by Node without a browser."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

VIEWERS = Path(__file__).resolve().parent / "viewers"
DECODER = VIEWERS / "decode_seg.mjs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What the viewer would lay over the images."""

    numbers: Mapping[tuple[str, int], NDArray[np.uint8]]
    """Segment Numbers [row, column] by SOP Instance UID and frame number (1: of a single-frame)."""
    segments: Mapping[int, str]
    """Segment Label by Segment Number."""
    problems: tuple[str, ...] = ()
    """What it threw or warned of; nothing is decoded then."""


def decode(jobs: Mapping[str, tuple[list[bytes], bytes]], folder: Path) -> dict[str, Decoded]:
    """Decode Segmentations with cornerstone's adapters in one process.

    Args:
        jobs: by name, the files of the source, in the order in which the viewer gets them, and the
            Segmentation.
        folder: for files.
    """
    described = []
    for index, (sources, seg) in enumerate(jobs.values()):
        own = folder / str(index)
        own.mkdir(parents=True)
        paths = [own / f"{number}.dcm" for number in range(len(sources))]
        for path, data in zip(paths, sources, strict=True):
            path.write_bytes(data)
        (own / "seg.dcm").write_bytes(seg)
        described.append(
            {
                "sources": [str(path) for path in paths],
                "seg": str(own / "seg.dcm"),
                "out": str(own / "labels"),
            }
        )
    todo = folder / "jobs.json"
    todo.write_text(json.dumps(described))
    done = subprocess.run(
        ["node", DECODER, todo], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return {
        name: _decoded(answer, Path(job["out"]), pydicom.dcmread(job["seg"]))
        for name, answer, job in zip(jobs, answers, described, strict=True)
    }


def _decoded(answer: dict[str, Any], path: Path, seg: pydicom.Dataset) -> Decoded:
    if answer["problems"]:
        return Decoded(numbers={}, segments={}, problems=tuple(answer["problems"]))
    images, segments = answer["images"], answer["segments"]
    assert answer["layers"] == 1
    assert not answer["overlapping"]
    raw = np.fromfile(path, np.uint8).reshape(len(images), seg.Rows, seg.Columns)
    return Decoded(
        numbers={(uid, frame): image for (uid, frame), image in zip(images, raw, strict=True)},
        segments={item["number"]: item["label"] for item in segments},
    )
