"""Two patients in turn through one warm process, with crashes between: no result is the other's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.plans import Analysis, ModelOptions, Plan
from dicomnode.engines.local import LocalEngine
from dicomnode.errors import EngineError
from inference.phantom import Body

AFFINE = np.diag([-8.0, -8.0, 12.0, 1.0])
AFFINE[:3, 3] = (180.0, 200.0, -100.0)


class DispatcherError(Exception):
    """Something went wrong with who asked, while the analysis ran."""


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(analyses_per_process=100, timeout_seconds=200)
    yield engine
    engine.close()


def write_patient(folder: Path, seed: int) -> list[Path]:
    hu, _ = Body(seed).render((46, 50, 16), AFFINE)
    folder.mkdir()
    paths = []
    for number, data in enumerate(write_series(hu, AFFINE, SeriesOptions(seed=seed))):
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(data)
    return paths


def plan(name: str) -> Plan:
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    exact = ModelOptions(mode="exact")  # no engine to compile in each new process
    return Plan(job_id=name, model_id="demo", analysed_at=when, threads=1, options=exact)


def content(analysis: Analysis) -> tuple[object, ...]:
    """All that leaves the process."""
    return (
        analysis.label_map_digest,
        analysis.label_map,
        [item.data for item in analysis.results],
    )


def test_two_patients_never_mix(engine: LocalEngine, tmp_path: Path) -> None:
    paths = {name: write_patient(tmp_path / name, seed) for name, seed in (("A", 3), ("B", 4))}
    expected: dict[str, tuple[object, ...]] = {}

    def analyze(name: str, progress: Callable[[str, float], None] = lambda *_: None) -> None:
        found = engine.analyze(paths[name], plan(name), progress, lambda: True, every_seconds=0.1)
        assert found.job_id == name
        assert found.series_uid == pydicom.dcmread(paths[name][0]).SeriesInstanceUID
        assert content(found) == expected.setdefault(name, content(found))

    def kill(stage: str, fraction: float) -> None:
        if stage == "predict" and engine._process.is_alive():
            os.kill(engine._process.pid, signal.SIGKILL)

    def fail(stage: str, fraction: float) -> None:
        if stage == "predict":
            raise DispatcherError

    analyze("A")
    analyze("B")
    assert expected["A"][0] != expected["B"][0], "two patients with one label map prove nothing"
    with pytest.raises(EngineError, match="killed"):
        analyze("B", kill)
    analyze("A")
    with pytest.raises(DispatcherError):
        analyze("B", fail)
    analyze("A")  # the answer on B, which nobody awaited, is not taken for it
    analyze("B")
