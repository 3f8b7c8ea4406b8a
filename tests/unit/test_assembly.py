"""When a study is complete, and whether it is recent enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.domain.assembly import (
    KNOWN_COUNT,
    OPEN_TOO_LONG,
    QUIET,
    SERIES_ENDED,
    Answer,
    AssemblyPolicy,
    Close,
    EndGroup,
    OpenStudy,
    SeriesHere,
    Wait,
    days_too_old,
    has_ended,
    look_at,
    missing,
    plausible,
    quiet_at,
    verdict,
)

T0 = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = AssemblyPolicy()


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


# Quiet time


@pytest.mark.parametrize(
    ("now", "image", "before", "study_quiet", "series_quiet", "quiet"),
    [
        (0, True, None, 60, 60, 60),
        (10, True, 60, 60, 60, 70),
        (10, True, 60, 60, 30, 70),  # the study's own quiet time is the longer one
        (10, True, 60, 60, 100, 110),  # the series' is
        (10, False, 60, 60, 100, 70),  # what comes is no image: its series has no quiet time
        (100, False, 190, 10, 100, 190),  # a peer that needs longer was there before
        (0, True, None, 0.5, 0.25, 0.5),
    ],
)
def test_a_study_is_quiet_when_it_and_each_series_were(
    now: float,
    image: bool,
    before: float | None,
    study_quiet: float,
    series_quiet: float,
    quiet: float,
) -> None:
    policy = AssemblyPolicy(study_quiet_seconds=study_quiet, series_quiet_seconds=series_quiet)
    earlier = None if before is None else at(before)
    assert quiet_at(at(now), policy, is_image=image, before=earlier) == at(quiet)


def test_it_is_looked_at_when_it_might_close_first() -> None:
    assert look_at(at(5), at(0), at(65), POLICY) == at(25)  # after the grace
    assert look_at(at(5), at(0), at(10), POLICY) == at(10)  # when it is quiet
    assert look_at(at(7195), at(0), at(7255), POLICY) == at(7200)  # when it was open too long


@pytest.mark.parametrize("seconds", [0, -1, 86401, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name",
    [
        "study_quiet_seconds",
        "series_quiet_seconds",
        "end_grace_seconds",
        "count_apart_seconds",
        "count_wait_seconds",
    ],
)
def test_a_wait_is_positive_and_at_most_a_day(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        AssemblyPolicy(**{name: seconds})


@pytest.mark.parametrize("value", [0, -1, 40000000, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_open_seconds", "max_study_age_days"])
def test_the_longest_times_are_positive_and_bounded(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        AssemblyPolicy(**{name: value})


def test_a_day_is_allowed() -> None:
    assert AssemblyPolicy(study_quiet_seconds=86400).study_quiet_seconds == 86400


# The verdict

SERIES = SeriesHere(series_uid="1.1", instances=3, is_image=True, ended=False)
STUDY = OpenStudy(opened_at=at(0), last_at=at(10), quiet_at=at(70), series=(SERIES,))


def answer(first: float, last: float, peer: str = "PACS", **counts: int) -> Answer:
    named = {uid.replace("_", "."): count for uid, count in counts.items()}
    return Answer(peer=peer, first_at=at(first), last_at=at(last), counts=named)


def closes(study: OpenStudy, now: float, policy: AssemblyPolicy = POLICY) -> str | None:
    decided = verdict(study, policy, at(now))
    return decided.why if isinstance(decided, Close) else None


def waits_until(study: OpenStudy, now: float) -> float:
    decided = verdict(study, POLICY, at(now))
    assert isinstance(decided, Wait)
    return (decided.until - T0).total_seconds()


def test_quiet_time_closes() -> None:
    assert closes(STUDY, 69.9) is None
    assert waits_until(STUDY, 30) == 70
    assert closes(STUDY, 70) == QUIET


def test_an_end_of_every_ct_series_shortens_the_wait_to_the_grace() -> None:
    ended = replace(SERIES, ended=True)
    document = SeriesHere(series_uid="1.2", instances=1, is_image=False, ended=False)
    study = replace(STUDY, series=(ended, document))
    assert waits_until(study, 10) == 30
    assert closes(study, 30) == SERIES_ENDED
    both = replace(STUDY, series=(ended, replace(SERIES, series_uid="1.3")))
    assert waits_until(both, 30) == 70
    assert waits_until(replace(STUDY, series=(document,)), 30) == 70


def test_an_end_never_makes_the_wait_longer() -> None:
    study = replace(STUDY, quiet_at=at(12), series=(replace(SERIES, ended=True),))
    assert closes(study, 12) == QUIET


def test_two_answers_that_agree_and_equal_what_lies_here_close_at_once() -> None:
    known = replace(STUDY, answers=(answer(15, 45, **{"1_1": 3}),))
    assert closes(known, 45) == KNOWN_COUNT


@pytest.mark.parametrize(
    "said",
    [
        answer(15, 44.9, **{"1_1": 3}),  # not far enough apart
        answer(15, 15, **{"1_1": 3}),  # one answer
        answer(15, 45, **{"1_1": 2}),  # the archive has less than lies here
        answer(15, 45, **{"1_1": 3, "1_2": 1}),  # and a series that did not come
        answer(15, 45),  # and nothing
        answer(15, 45, **{"1_2": 3}),  # as many, but of another series
    ],
)
def test_any_other_answer_leaves_it_to_the_quiet_time(said: Answer) -> None:
    study = replace(STUDY, answers=(said,))
    assert closes(study, 69) is None
    assert closes(study, 70) == QUIET


def test_what_an_archive_has_more_of_a_series_is_waited_for_but_not_for_ever() -> None:
    study = replace(STUDY, answers=(answer(15, 45, **{"1_1": 5, "1_2": 9}),))
    assert missing(study) == 2
    assert waits_until(study, 70) == 670
    decided = verdict(study, POLICY, at(670))
    assert isinstance(decided, Close)
    assert (decided.why, decided.short) == (QUIET, 2)
    ended = replace(study, series=(replace(SERIES, ended=True),))
    assert waits_until(ended, 70) == 670


def test_an_archive_that_says_nothing_of_the_study_closes_nothing() -> None:
    nothing = replace(STUDY, series=(), answers=(answer(15, 45),))
    assert closes(nothing, 69) is None


def test_of_two_archives_one_suffices_and_each_may_miss_something() -> None:
    both = (answer(15, 45, "A", **{"1_1": 5}), answer(15, 45, "B", **{"1_1": 3}))
    assert closes(replace(STUDY, answers=both), 46) == KNOWN_COUNT
    assert missing(replace(STUDY, answers=both)) == 2


def test_a_study_into_which_something_trickles_closes_all_the_same() -> None:
    trickle = replace(STUDY, last_at=at(7199), quiet_at=at(7259))
    assert waits_until(trickle, 7199) == 7200
    assert closes(trickle, 7200) == OPEN_TOO_LONG
    short = replace(trickle, answers=(answer(15, 45, **{"1_1": 5}),))
    assert closes(short, 7200) == OPEN_TOO_LONG


# The end of a series


def group(**changes: int) -> EndGroup:
    values = {"instances": 3, "distinct": 3, "first": 1, "last": 3}
    return EndGroup(**{**values, "least_total": 3, "most_total": 3, **changes})


@pytest.mark.parametrize(
    ("groups", "unstated", "ended"),
    [
        ([group()], 0, True),
        ([group(), group(first=4, last=6)], 0, True),
        ([group(first=101, last=103)], 0, True),
        ([], 0, False),
        ([], 3, False),
        ([group()], 1, False),
        ([group(least_total=4, most_total=4)], 0, False),  # one is missing
        ([group(least_total=2, most_total=2)], 0, False),  # one too many: several reconstructions
        ([group(least_total=2)], 0, False),  # they do not agree
        ([group(last=4)], 0, False),  # a gap
        ([group(distinct=2)], 0, False),  # a repetition
        ([group(), group(least_total=4, most_total=4)], 0, False),
    ],
)
def test_the_end_of_a_series(groups: list[EndGroup], unstated: int, ended: bool) -> None:
    assert has_ended(groups, unstated) is ended


# Age


@pytest.mark.parametrize(
    ("age_days", "days"),
    [(0, None), (3, None), (3.01, 3), (4, 4), (4000, 4000), (-0.5, None), (None, None)],
)
def test_an_old_study_is_told_by_its_age_when_it_came(
    age_days: float | None, days: int | None
) -> None:
    study_at = None if age_days is None else T0 - timedelta(days=age_days)
    assert days_too_old(study_at, T0, POLICY) == days
    assert days_too_old(study_at, T0, AssemblyPolicy(max_study_age_days=None)) is None


@pytest.mark.parametrize(
    ("study_at", "is_one"),
    [
        (T0, True),
        (T0 + timedelta(hours=23), True),
        (T0 + timedelta(hours=25), False),
        (datetime(1900, 1, 1, tzinfo=UTC), False),
        (datetime(1971, 10, 1, tzinfo=UTC), True),
        (None, False),
    ],
)
def test_a_study_date_that_cannot_be_one_is_none(study_at: datetime | None, is_one: bool) -> None:
    assert plausible(study_at, T0) == (study_at if is_one else None)


# Fetches


@pytest.mark.parametrize(
    ("now", "fetched", "fetching", "decided"),
    [
        (1, 1, False, "FETCHED"),  # nothing came since
        (1, 0.5, False, None),  # something came since
        (60, 0.5, False, "QUIET"),
        (1, 1, True, None),  # and once more is under way
        (61, None, True, None),  # quiet for long: the archive reads from tape
        (7199, None, True, None),
        (7200, None, True, "QUIET"),  # but not for ever
    ],
)
def test_what_is_fetched_waits_for_the_fetch_and_no_longer(
    now: float, fetched: float | None, fetching: bool, decided: str | None
) -> None:
    study = OpenStudy(
        opened_at=at(0),
        last_at=at(0.75),
        quiet_at=at(60),
        series=(SeriesHere(series_uid="1.2", instances=3, is_image=True, ended=False),),
        fetched_at=None if fetched is None else at(fetched),
        is_fetching=fetching,
    )
    found = verdict(study, POLICY, at(now))
    assert (found.why if isinstance(found, Close) else None) == decided
    if isinstance(found, Wait):
        assert at(now) < found.until <= at(7200)
