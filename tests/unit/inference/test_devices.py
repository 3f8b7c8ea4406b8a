"""Which device satisfies what a card requires, and who takes which model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inference import devices
from inference.card import Requirements
from inference.devices import ask_gpus, check, for_others, ram_memory_gib, why_not

NOTHING = Requirements()
LARGE = Requirements(gpu_memory_gib=16)
HUGE = Requirements(gpu_memory_gib=80, ram_gib=64)


@pytest.mark.parametrize(
    ("requires", "device", "ram", "gpu", "why"),
    [
        (NOTHING, "cpu", 1.0, None, ""),
        (LARGE, "cuda:0", 1.0, 16.0, ""),
        (LARGE, "cuda:0", 1.0, 15.6, ""),
        (LARGE, "cuda:0", 1.0, None, ""),
        (LARGE, "cuda:1", 1.0, 11.9, "a GPU with 16 GiB, and cuda:1 has 11.9"),
        (LARGE, "cpu", 512.0, None, "a GPU with 16 GiB, and this device is the CPU"),
        (HUGE, "cuda:0", 62.4, 79.2, ""),
        (HUGE, "cuda:0", 31.2, 79.2, "64 GiB of RAM, and here are 31.2"),
        (Requirements(ram_gib=64), "cpu", 31.2, None, "64 GiB of RAM, and here are 31.2"),
    ],
)
def test_a_device_satisfies_a_model_or_says_why_not(
    requires: Requirements, device: str, ram: float, gpu: float | None, why: str
) -> None:
    said = why_not(requires, device, ram_gib=ram, gpu_gib=gpu)
    assert said.endswith(why)
    assert bool(said) == bool(why)


def test_a_model_is_left_to_the_devices_that_have_the_memory() -> None:
    models = {"any": NOTHING, "large": LARGE, "huge": HUGE}
    chosen = ("cpu", "cuda:0", "cuda:1")
    left = for_others(models, chosen, ram_gib=128.0, gpus_gib=(11.9, 24.0))
    assert left == {
        "cpu": {"large"},
        "cuda:0": {"large"},
        "cuda:1": frozenset(),
    }, "what nobody can run is refused by whoever takes it, not left lying"


def test_the_memory_here_is_that_of_the_container(tmp_path: Path) -> None:
    limit, none = tmp_path / "memory.max", tmp_path / "unlimited"
    limit.write_text(f"{2 * devices.GIB}\n")
    none.write_text("max\n")
    whole = ram_memory_gib(())
    assert whole == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / devices.GIB
    assert ram_memory_gib((str(none), str(tmp_path / "missing"))) == whole
    assert ram_memory_gib((str(none), str(limit))) == min(2.0, whole)


def test_what_requires_nothing_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_memory_gib", lambda: pytest.fail("asked"))
    assert check(NOTHING, "auto") == ""
    assert check(Requirements(ram_gib=0.001), "cpu") == ""
    assert "GiB of RAM" in check(Requirements(ram_gib=60000), "cuda:3")


def test_auto_is_the_first_gpu_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_memory_gib", lambda: (15.7,))
    assert check(LARGE, "auto") == ""
    monkeypatch.setattr(devices, "gpu_memory_gib", lambda: ())
    assert "is the CPU" in check(LARGE, "auto")


def test_the_gpus_are_asked_in_a_process_of_its_own() -> None:
    assert ask_gpus() == devices.gpu_memory_gib()


def test_a_process_that_fails_is_an_error_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="could not be asked"):
        ask_gpus()
