"""What may be purged, and when: bytes go by age and state, facts stay.

Nothing goes that somebody still waits for. Purged instances leave their rows behind (tombstones):
a re-send is no new study, and a late slice is never analysed alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from dicomnode.domain.commitment import may_be_purged
from dicomnode.domain.lifecycle import (
    CANCELLED,
    CLOSED,
    COMMITTED,
    DELIVERED,
    DONE,
    QUARANTINED,
    REFUSED,
    SUBSTITUTED,
)

INPUT_PURGED = "INPUT_PURGED"
"""A series is not analysed, because the bytes of some of its instances are purged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """For how long bytes and events are kept; None: for ever."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    input_days: float | None = 14.0
    """After the last image of the study."""
    results_days: float | None = 30.0
    """After the analysis."""
    quarantine_days: float | None = 90.0
    quarantine_max_bytes: int | None = 20_000_000_000
    """What is oldest goes first."""
    events_days: float | None = 365.0

    def __post_init__(self) -> None:
        for name in ("input_days", "results_days", "quarantine_days", "events_days"):
            days = getattr(self, name)
            if days is not None and not 0 < days <= 36500:
                raise ValueError(f"@.{name}: must be more than 0 and at most 36500 days")
        if self.quarantine_max_bytes is not None and self.quarantine_max_bytes < 0:
            raise ValueError("@.quarantine_max_bytes: must not be less than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFacts:
    """How a result fares at one of its destinations."""

    destination: str
    state: str
    acknowledged: bool = False
    """A person has seen that it was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """An analysis, and where its results are to go."""

    state: str
    updated_at: datetime
    deliveries: tuple[DeliveryFacts, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyFacts:
    """What has to be known of a study before its input goes."""

    state: str
    last_at: datetime
    jobs: tuple[JobFacts, ...] = ()
    is_promised: bool = False
    """This node has committed to keeping instances of it (PS3.4 annex J)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """Something in quarantine."""

    name: str
    size: int
    since: datetime
    of_held_study: bool = False


def cutoff(days: float | None, now: datetime) -> datetime | None:
    """Return the time before which things are old; None: they never are."""
    return None if days is None else now - timedelta(days=days)


def is_settled(delivery: DeliveryFacts, must_commit: Collection[str]) -> bool:
    """Whether nothing is to be sent any more.

    Args:
        delivery: to one destination.
        must_commit: destinations that have to take responsibility before anything is purged.
    """
    if delivery.destination in must_commit:
        return may_be_purged({delivery.state})
    if delivery.state == REFUSED:
        return delivery.acknowledged
    return delivery.state in (DELIVERED, COMMITTED, SUBSTITUTED, CANCELLED)


def keeps_input(
    study: StudyFacts, policy: RetentionPolicy, must_commit: Collection[str], now: datetime
) -> str | None:
    """Say why the instances of a study are kept; None: they may go."""
    old = cutoff(policy.input_days, now)
    if old is None or study.last_at > old:
        return "it is not old enough"
    if study.state != CLOSED:
        return "it is open or held"
    if study.is_promised:
        return "this node has committed to keeping it"
    for job in study.jobs:
        if job.state == QUARANTINED:
            return "a job of it is in quarantine"
        if job.state not in (DONE, REFUSED, CANCELLED):
            return "a job of it is not done"
        if not all(is_settled(one, must_commit) for one in job.deliveries):
            return "results have not arrived"
    return None


def keeps_results(
    job: JobFacts, policy: RetentionPolicy, must_commit: Collection[str], now: datetime
) -> str | None:
    """Say why the results of an analysis are kept; None: they may go."""
    old = cutoff(policy.results_days, now)
    if old is None or job.updated_at > old:
        return "they are not old enough"
    if job.state not in (DONE, REFUSED, CANCELLED):
        return "the job is not done"
    if not all(is_settled(one, must_commit) for one in job.deliveries):
        return "they have not arrived"
    return None


def leaves_quarantine(
    items: Iterable[Quarantined], policy: RetentionPolicy, now: datetime
) -> list[Quarantined]:
    """Return what goes out of quarantine: what is too old, and of too much the oldest.

    What belongs to a study that is held stays: a person has yet to look at it.
    """
    old = cutoff(policy.quarantine_days, now)
    free = sorted((one for one in items if not one.of_held_study), key=lambda one: one.since)
    left = sum(one.size for one in free)
    gone = []
    for one in free:
        too_much = policy.quarantine_max_bytes is not None and left > policy.quarantine_max_bytes
        if not too_much and (old is None or one.since > old):
            break
        gone.append(one)
        left -= one.size
    return gone
