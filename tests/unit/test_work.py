"""Which devices the workers get, and which models a device leaves to others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_nnunet import write_model

from dicomnode.services import work
from dicomnode.services.work import devices, left_to_others
from dicomnode.settings import Settings, parse


@pytest.mark.parametrize(
    ("chosen", "present", "expected"),
    [
        (("auto",), [], ("cpu",)),
        (("auto",), ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], ("cuda:0", "cuda:1")),
        (("cpu",), ["nvidia0"], ("cpu",)),
        (("cuda:1",), ["nvidia0", "nvidia1"], ("cuda:1",)),
    ],
)
def test_a_worker_for_every_gpu_or_one_for_the_cpu(
    tmp_path: Path,
    chosen: tuple[str, ...],
    present: list[str],
    expected: tuple[str, ...],
) -> None:
    for name in present:
        (tmp_path / name).touch()
    assert devices(chosen, tmp_path) == expected


@pytest.fixture
def two_models(tmp_path: Path) -> Settings:
    """A small model, and one that requires a GPU with 16 GiB."""
    write_model(tmp_path, model_id="small")
    write_model(tmp_path, model_id="large", requires={"gpu_memory_gib": 16})
    text = f"work: {{model_folders: [{tmp_path}]}}"
    return parse(text, tmp_path / "dicomnode.yaml")


def test_jobs_go_to_the_device_that_has_the_memory(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "ask_gpus", lambda: (11.9, 24.0))
    left = left_to_others(two_models, ("cuda:0", "cuda:1"))
    assert left == {"cuda:0": {"large"}, "cuda:1": frozenset()}
    monkeypatch.setattr(work, "ask_gpus", lambda: (8.0, 8.0))
    left = left_to_others(two_models, ("cuda:0", "cuda:1"))
    assert left == {"cuda:0": frozenset(), "cuda:1": frozenset()}


def test_a_single_device_takes_everything_and_nobody_is_asked(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "ask_gpus", lambda: pytest.fail("asked"))
    assert left_to_others(two_models, ("cpu",)) == {}


def test_gpus_that_cannot_be_asked_are_compared_with_nothing(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> tuple[float, ...]:
        raise OSError("no driver")

    monkeypatch.setattr(work, "ask_gpus", fail)
    assert left_to_others(two_models, ("cuda:0", "cuda:1")) == {}
    assert "DEVICES_NOT_COMPARED" in caplog.text


def test_an_analysis_computes_only_when_nobody_else_wants_to() -> None:
    program = (
        "import os, threading; from dicomnode.engines.local import give_way; give_way()\n"
        "later = threading.Thread(target=lambda: print(os.sched_getscheduler(0)))\n"
        "later.start(); later.join()\n"
        "print(os.getsid(0) == os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(os.SCHED_IDLE), "True"]
