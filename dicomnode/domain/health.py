"""How a destination fares, and when it is called again. Pure: facts in, facts out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomnode.domain.outcomes import Backoff, Outcome, Retry

ALARM_AFTER = timedelta(hours=1)
"""A destination that has been away for so long needs a person."""
MOST_PATIENCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a destination has fared since something last went well."""

    failures: int = 0
    """Attempts that failed in a row, with whatever object, or without an association."""
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    """Nobody calls it before."""
    reason: str | None = None
    detail: str = ""
    last_delivery: int | None = None
    """Of the last attempt that failed, if it was one with an object."""

    @property
    def is_away(self) -> bool:
        """Whether the fault seems to be the destination's and not an object's."""
        return self.retry_at is not None


WELL = Health()


def after(
    health: Health,
    outcome: Outcome,
    delivery: int | None,
    now: datetime,
    backoff: Backoff,
    jitter: float,
) -> Health:
    """Return how a destination fares after an attempt.

    An attempt without an association is the destination's fault. One with an object may be the
    object's: only when another object fails next, with nothing in between that went well, is the
    destination left alone for a while.

    Args:
        health: before.
        outcome: of the attempt; whatever is no `Retry` is an answer, and shows that it lives.
        delivery: whose turn it was; None: there was no association.
        now: when the attempt ended.
        backoff: how long it is left alone.
        jitter: a random number in [0, 1).
    """
    if not isinstance(outcome, Retry):
        return WELL
    failures = health.failures + 1
    away = delivery is None or health.is_away or health.last_delivery not in (None, delivery)
    return Health(
        failures=failures,
        failing_since=health.failing_since or now,
        retry_at=now + backoff.after(failures, jitter) if away else None,
        reason=outcome.code,
        detail=outcome.detail,
        last_delivery=delivery,
    )


def patience(timeout_seconds: float, attempt: int) -> float:
    """Return for how long nothing may move before an attempt is given up, in seconds.

    An archive that needs longer for an object than it is given would never get it: it is given
    twice as long with every attempt, up to eight times.
    """
    return float(timeout_seconds * min(2 ** max(attempt - 1, 0), MOST_PATIENCE))
