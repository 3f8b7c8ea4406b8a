"""When is a study complete, and is it recent enough to be analysed?

Pure functions of facts, policy and now. No clock, no network and no ledger may enter: `tick` brings
the facts and does what the verdict says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

KNOWN_COUNT = "KNOWN_COUNT"
SERIES_ENDED = "SERIES_ENDED"
QUIET = "QUIET"
OPEN_TOO_LONG = "OPEN_TOO_LONG"
FETCHED = "FETCHED"

FETCH_LOOK = timedelta(seconds=15)
"""While a fetch is under way the study is looked at so often, and at once when the fetch ends."""

FIRST_CT = datetime(1971, 10, 1, tzinfo=UTC)
"""The first CT of a patient. An earlier Study Date is a placeholder."""
TOMORROW = timedelta(days=1)
"""A Study Date may be so far ahead: time zones, and clocks that are a little wrong."""
DAY_SECONDS = 86400.0
ASK_AFTER_SECONDS = 5.0
"""An archive is not asked for a study of which something came so lately: its count still grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyPolicy:
    """How long nothing may come before a study counts as complete, and what else ends the wait."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    study_quiet_seconds: float = 60.0
    """Since the last instance of the study, of whatever series."""
    series_quiet_seconds: float = 60.0
    """Since the last instance of each single CT series; matters where it is the longer one."""
    end_grace_seconds: float = 20.0
    """Instead of both, where every CT series of the study says that it has ended."""
    max_open_seconds: float = 7200.0
    """A study closes after so long, whatever still trickles in."""
    count_apart_seconds: float = 30.0
    """Between two answers of an archive that must agree on how much there is."""
    count_wait_seconds: float = 600.0
    """So long the quiet time is extended for instances that the archive has and this node not."""
    max_study_age_days: float | None = 3.0
    """A study that was older when it came is kept and not analysed; null: whatever its age."""

    def __post_init__(self) -> None:
        for name in (
            "study_quiet_seconds",
            "series_quiet_seconds",
            "end_grace_seconds",
            "count_apart_seconds",
            "count_wait_seconds",
        ):
            if not 0 < getattr(self, name) <= DAY_SECONDS:
                raise ValueError(f"{name} must be more than 0 and at most 86400 seconds")
        if not 0 < self.max_open_seconds <= 30 * DAY_SECONDS:
            raise ValueError("max_open_seconds must be more than 0 and at most 2592000 (30 days)")
        if self.max_study_age_days is not None and not 0 < self.max_study_age_days <= 36500:
            raise ValueError("max_study_age_days must be more than 0 and at most 36500, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndGroup:
    """Instances of a series that say together how many they are: an acquisition, a concatenation.

    Numbers are Instance Numbers, or In-concatenation Numbers.
    """

    instances: int
    distinct: int
    """Different numbers among them."""
    first: int
    last: int
    least_total: int
    """Of Images in Acquisition (0020,1002), or of In-concatenation Total Number (0020,9163)."""
    most_total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesHere:
    """What lies here of a series."""

    series_uid: str
    instances: int
    """All of them, whether they count for an analysis or not."""
    is_image: bool
    """A CT series with instances that count."""
    ended: bool
    """It says that it is complete, see `has_ended`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The same counts, as a peer stated them again and again from `first_at` to `last_at`."""

    peer: str
    first_at: datetime
    last_at: datetime
    counts: Mapping[str, int]
    """Number of Series Related Instances by Series Instance UID, without our own results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """What is known of a study that is open."""

    opened_at: datetime
    """When its first instance came, or the first one after it had been closed."""
    last_at: datetime
    quiet_at: datetime
    """When it and each of its series will have been quiet, by the peers' own quiet times."""
    series: tuple[SeriesHere, ...]
    answers: tuple[Answer, ...] = ()
    """The newest of each peer that was asked, since the study was opened."""
    fetched_at: datetime | None = None
    """When a fetch had brought all of it that an archive had, if one did."""
    is_fetching: bool = False
    """A fetch of it is under way, and gives signs of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The study is complete, as far as can be told."""

    why: str
    detail: str
    short: int = 0
    """Instances that an archive has of the series here, and this node has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """It may still grow; look again then, or when something comes."""

    until: datetime


def quiet_at(
    now: datetime, policy: AssemblyPolicy, *, is_image: bool, before: datetime | None = None
) -> datetime:
    """Return when a study will have been quiet, if nothing comes after what comes now.

    Args:
        policy: of the peer that it comes from.
        is_image: it belongs to a CT series, whose own quiet time has to pass as well.
        before: what this function returned for what came earlier, if anything did: a study waits
            for the slowest of its peers.
    """
    seconds = policy.study_quiet_seconds
    if is_image:
        seconds = max(seconds, policy.series_quiet_seconds)
    quiet = now + timedelta(seconds=seconds)
    return quiet if before is None else max(quiet, before)


def look_at(
    now: datetime, opened_at: datetime, quiet: datetime, policy: AssemblyPolicy
) -> datetime:
    """Return the first moment after an arrival at which the study might close."""
    grace = now + timedelta(seconds=policy.end_grace_seconds)
    return min(grace, quiet, opened_at + timedelta(seconds=policy.max_open_seconds))


def has_ended(groups: Iterable[EndGroup], unstated: int) -> bool:
    """Whether a series says that it is complete.

    Every instance belongs to a group, every group has as many instances as each of them states,
    and its numbers are without gap or repetition. Nothing in DICOM ends a series: another
    acquisition may follow. So this may shorten a wait, and never ends it.

    Args:
        unstated: instances that belong to no group.
    """
    stated = tuple(groups)
    return (
        unstated == 0
        and bool(stated)
        and all(
            group.instances
            == group.distinct
            == group.least_total
            == group.most_total
            == group.last - group.first + 1
            for group in stated
        )
    )


def missing(study: OpenStudy) -> int:
    """Return how many instances of the series that lie here the archives have and this node not.

    Series of which nothing came are not missed: they may not be meant for this node.
    """
    here = {series.series_uid: series.instances for series in study.series}
    return max(
        (
            sum(max(0, count - here[uid]) for uid, count in answer.counts.items() if uid in here)
            for answer in study.answers
        ),
        default=0,
    )


def verdict(study: OpenStudy, policy: AssemblyPolicy, now: datetime) -> Close | Wait:
    """Decide whether an open study closes now.

    Not while it is being fetched. Else the first that holds: a fetch has brought all of it, and
    nothing came since; an archive's count is known and lies here; it was quiet, or what it says
    of its end shortens that, and nothing is missing that an archive counts, for as long as the
    policy waits for it. In any case when it was open too long.
    """
    latest = study.opened_at + timedelta(seconds=policy.max_open_seconds)
    short = missing(study)
    here = {series.series_uid: series.instances for series in study.series if series.instances}
    if study.is_fetching and now < latest:
        return Wait(until=min(now + FETCH_LOOK, latest))
    if study.fetched_at is not None and study.fetched_at >= study.last_at:
        return Close(why=FETCHED, detail="all that the archive has was fetched")
    apart = timedelta(seconds=policy.count_apart_seconds)
    for answer in study.answers:
        if answer.last_at - answer.first_at >= apart and here and dict(answer.counts) == here:
            total = sum(here.values())
            detail = f"{answer.peer} has {total} instances in {len(here)} series, as there are here"
            return Close(why=KNOWN_COUNT, detail=detail)
    at, why, detail = study.quiet_at, QUIET, "nothing more came"
    images = [series for series in study.series if series.is_image]
    ended_at = study.last_at + timedelta(seconds=policy.end_grace_seconds)
    if images and all(series.ended for series in images) and ended_at < at:
        at, why, detail = ended_at, SERIES_ENDED, "every CT series says that it is complete"
    if short:
        at, why = study.quiet_at + timedelta(seconds=policy.count_wait_seconds), QUIET
        detail = "nothing more came"
    if now >= at:
        return Close(why=why, detail=detail, short=short)
    if now >= latest:
        detail = f"open for {policy.max_open_seconds:g} s"
        return Close(why=OPEN_TOO_LONG, detail=detail, short=short)
    return Wait(until=min(at, latest))


def plausible(study_at: datetime | None, now: datetime) -> datetime | None:
    """Return a study's date and time if it can be one, else None."""
    if study_at is None or not FIRST_CT <= study_at <= now + TOMORROW:
        return None
    return study_at


def days_too_old(
    study_at: datetime | None, came_at: datetime, policy: AssemblyPolicy
) -> int | None:
    """Return a study's age in days, if it was too old to be analysed when it came, else None.

    A study whose date is not known counts as new: a scanner with an empty or a wrong date must not
    lose the service without a word, and an analysis too many does no harm.

    Args:
        study_at: Study Date and Time, if plausible.
        came_at: when the first instance of the study came; what waits here does not grow old.
    """
    if study_at is None or policy.max_study_age_days is None:
        return None
    age = came_at - study_at
    return age.days if age > timedelta(days=policy.max_study_age_days) else None
