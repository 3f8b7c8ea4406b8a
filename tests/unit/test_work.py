"""Which devices the workers get."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.services.work import devices


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
