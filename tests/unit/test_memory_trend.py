"""Whether memory grows: the line through samples that the soak draws, on samples that are known."""

from __future__ import annotations

import numpy as np
import pytest
from processes import Trend, trend

HOURS = np.linspace(0.0, 0.3, 500)


def _noise(seed: int, *, alike: float = 0.0) -> np.ndarray:
    """Return samples around 300 MiB with a spread of 20, each like the one before by `alike`."""
    generator = np.random.default_rng(seed)
    found = generator.normal(0.0, 20.0, HOURS.size)
    for index in range(1, found.size):
        found[index] = alike * found[index - 1] + np.sqrt(1 - alike**2) * found[index]
    return 300.0 + found


def test_a_leak_is_seen_through_the_noise() -> None:
    found = trend(HOURS, _noise(1) + 100.0 * HOURS)
    assert not found.is_flat
    assert found.slope == pytest.approx(100.0, abs=found.noise)
    assert found.end - found.start == pytest.approx(30.0, abs=12.0)


def test_a_small_leak_of_a_quiet_process_is_seen() -> None:
    steps = np.round(40.0 + 2.0 * HOURS, 1)
    assert not trend(HOURS, steps).is_flat


def test_no_more_than_chance_is_flat() -> None:
    blamed = sum(not trend(HOURS, _noise(seed)).is_flat for seed in range(200))
    assert blamed <= 6


def test_samples_that_hang_together_are_not_taken_for_a_leak() -> None:
    blamed = sum(not trend(HOURS, _noise(seed, alike=0.97)).is_flat for seed in range(200))
    assert blamed <= 12


def test_memory_that_shrinks_or_does_not_move_is_flat() -> None:
    assert trend(HOURS, _noise(3) - 200.0 * HOURS).is_flat
    still = trend(HOURS, np.full(HOURS.size, 40.0))
    assert still == Trend(start=40.0, end=40.0, slope=0.0, noise=0.0)
    assert still.is_flat


def test_too_few_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="at least 40"):
        trend(HOURS[:30], HOURS[:30])
