"""What memory there is here, and whether it is what a model requires.

Asking CUDA loads torch: whoever must not load it asks a process of its own (`ask_gpus`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from inference.card import Requirements

TOLERANCE = 0.9
"""Drivers and kernels keep some for themselves: a machine of 16 GiB reports 15.5."""
GIB = 2**30
ASK_SECONDS = 120.0
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def why_not(requires: Requirements, device: str, *, ram_gib: float, gpu_gib: float | None) -> str:
    """Return why a device does not satisfy a model; empty where it does.

    Args:
        requires: of the model's card.
        device: `cpu` or `cuda:N`.
        ram_gib: of the machine or container.
        gpu_gib: memory of the GPU that `device` is; None where it is none, or not known.
    """
    if requires.ram_gib is not None and ram_gib < TOLERANCE * requires.ram_gib:
        return f"it requires {requires.ram_gib:g} GiB of RAM, and here are {ram_gib:.1f}"
    needed = requires.gpu_memory_gib
    if needed is None:
        return ""
    if device == "cpu":
        return f"it requires a GPU with {needed:g} GiB, and this device is the CPU"
    if gpu_gib is not None and gpu_gib < TOLERANCE * needed:
        return f"it requires a GPU with {needed:g} GiB, and {device} has {gpu_gib:.1f}"
    return ""


def for_others(
    models: Mapping[str, Requirements],
    devices: Sequence[str],
    *,
    ram_gib: float,
    gpus_gib: Sequence[float],
) -> dict[str, frozenset[str]]:
    """Return for each device the models that it leaves to another one, because that has the memory.

    A model that no device satisfies is left to none: whoever takes it up says why it cannot run.
    """
    able = {
        model: [
            device
            for device in devices
            if not why_not(requires, device, ram_gib=ram_gib, gpu_gib=_of(device, gpus_gib))
        ]
        for model, requires in models.items()
    }
    return {
        device: frozenset(model for model, fit in able.items() if fit and device not in fit)
        for device in devices
    }


def check(requires: Requirements, device: str) -> str:
    """Return why a device of this machine does not satisfy a model; empty where it does."""
    if requires == Requirements():
        return ""
    gpus = () if requires.gpu_memory_gib is None else gpu_memory_gib()
    if device == "auto":
        device = "cuda:0" if gpus else "cpu"
    return why_not(requires, device, ram_gib=ram_memory_gib(), gpu_gib=_of(device, gpus))


def _of(device: str, gpus_gib: Sequence[float]) -> float | None:
    number = device.partition(":")[2]
    return gpus_gib[int(number)] if number and int(number) < len(gpus_gib) else None


def ram_memory_gib(limits: Sequence[str] = _LIMITS) -> float:
    """Return the memory of the machine, or of the container if that may have less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in limits:
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):  # not this kind of container, or "max"
            continue
    return total / GIB


def gpu_memory_gib() -> tuple[float, ...]:
    """Return the memory of each CUDA device, in CUDA's order."""
    import torch  # takes seconds to load

    if not torch.cuda.is_available():
        return ()
    numbers = range(torch.cuda.device_count())
    return tuple(torch.cuda.get_device_properties(n).total_memory / GIB for n in numbers)


def ask_gpus() -> tuple[float, ...]:
    """Return what `gpu_memory_gib` does, from a process of its own.

    Raises:
        OSError: the process failed or took too long.
    """
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(command, capture_output=True, timeout=ASK_SECONDS, check=True)
        return tuple(float(number) for number in json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError, TypeError) as error:
        raise OSError(f"the GPUs could not be asked: {error}") from error


if __name__ == "__main__":
    sys.stdout.write(json.dumps(gpu_memory_gib()))
