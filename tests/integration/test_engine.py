"""The process that analyses: it has so much time, is replaced in time, and says what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomnode.demo.series import write_series
from dicomnode.domain.plans import Analysis, ModelOptions, Plan
from dicomnode.engines.local import LocalEngine, is_out_of_memory
from dicomnode.errors import EngineError, Refusal
from inference.phantom import Body

PLAN = Plan(
    job_id="1",
    model_id="demo",
    analysed_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    threads=2,
    options=ModelOptions(mode="exact"),
)


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(analyses_per_process=2, timeout_seconds=200)
    yield engine
    engine.close()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    affine = np.diag([-8.0, -8.0, 12.0, 1.0])
    affine[:3, 3] = (180.0, 200.0, -100.0)
    hu, _ = Body(3).render((46, 50, 16), affine)
    paths = []
    for number, data in enumerate(write_series(hu, affine)):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(data)
    return paths


def analyze(engine: LocalEngine, paths: list[Path], plan: Plan = PLAN) -> Analysis:
    return engine.analyze(paths, plan, lambda *_: None, lambda: True, every_seconds=0.1)


def process(engine: LocalEngine) -> int | None:
    return engine._process.pid if engine._process is not None else None


def test_it_is_replaced_in_time_and_after_what_it_lacked_memory_for(
    engine: LocalEngine, paths: list[Path]
) -> None:
    for _ in range(2):
        with pytest.raises(Refusal):
            analyze(engine, paths, replace(PLAN, model_id="none"))
    first = process(engine)
    whole = analyze(engine, paths)
    second = process(engine)
    assert second not in (first, None)

    thrifty = analyze(engine, paths, replace(PLAN, thrifty=True))
    assert process(engine) is None  # what it has loaded would lie beside the next one's
    assert thrifty.label_map_digest == whole.label_map_digest


def test_an_analysis_that_takes_too_long_is_ended(paths: list[Path]) -> None:
    engine = LocalEngine(analyses_per_process=2, timeout_seconds=0.2)
    with pytest.raises(EngineError) as caught:
        analyze(engine, paths)
    assert caught.value.code == "TIMEOUT"
    assert process(engine) is None


def test_what_it_says_when_it_gets_no_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("the network gave scores that are not numbers"))
