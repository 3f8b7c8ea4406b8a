"""When a study is complete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.domain.assembly import AssemblyPolicy, closes_at

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("study", "series", "study_quiet", "series_quiet", "closes"),
    [
        (0, [], 60, 60, 60),
        (10, [0, 10], 60, 60, 70),
        (10, [0], 60, 30, 70),  # the study's own quiet time is the longer one
        (10, [10], 60, 100, 110),  # the series' is
        (100, [0, 5], 10, 100, 110),
        (100, [90], 10, 100, 190),
        (0, [0], 0.5, 0.25, 0.5),
    ],
)
def test_a_study_closes_when_it_and_each_series_were_quiet(
    study: float, series: list[float], study_quiet: float, series_quiet: float, closes: float
) -> None:
    policy = AssemblyPolicy(study_quiet_seconds=study_quiet, series_quiet_seconds=series_quiet)
    assert closes_at(at(study), map(at, series), policy) == at(closes)


@pytest.mark.parametrize("seconds", [0, -1, 86401, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["study_quiet_seconds", "series_quiet_seconds"])
def test_a_quiet_time_is_positive_and_at_most_a_day(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        AssemblyPolicy(**{name: seconds})


def test_a_day_is_allowed() -> None:
    assert AssemblyPolicy(study_quiet_seconds=86400).study_quiet_seconds == 86400
