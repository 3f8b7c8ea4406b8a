"""Is it receiving, analysing, sending? One sentence each, from facts, for who only glances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "watch", "bad"]
SILENT_SECONDS = 30.0
"""A role that has given no sign of life for so long is taken for dead."""
LONG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """How much waits, and for how long the oldest has."""

    depth: int = 0
    oldest_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the three sentences are made of."""

    silent_seconds: Mapping[str, float]
    """Of each role that has ever given a sign of life and has not ended in good order."""
    free_bytes: int
    min_free_bytes: int
    last_seconds_ago: float | None
    """Since the newest image; None: none ever came."""
    open_associations: int
    running: Queue
    queued: Queue
    deliveries: Queue
    away: tuple[str, ...]
    """Destinations that do not answer."""
    paused: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To one of the three questions."""

    question: str
    level: Level
    short: str
    says: str


def ago(seconds: float | None) -> str:
    """Return a span of time in words: its two largest units."""
    if seconds is None:
        return "never"
    left = int(seconds)
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        number, left = divmod(left, size)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def glance(look: Look) -> tuple[Answer, ...]:
    """Return the answers to: is it receiving, analysing, sending."""
    return (_receiving(look), _analysing(look), _sending(look))


def _fault(question: str, role: str, look: Look) -> Answer | None:
    silent = look.silent_seconds.get(role)
    if silent is None:
        says = f"The role {role} does not run."
        return Answer(question=question, level="bad", short="No", says=says)
    if silent > SILENT_SECONDS:
        says = f"The role {role} has given no sign of life for {ago(silent)}."
        return Answer(question=question, level="bad", short="No", says=says)
    return None


def _receiving(look: Look) -> Answer:
    question = "Receiving"
    fault = _fault(question, "receive", look)
    if fault:
        return fault
    if look.free_bytes < look.min_free_bytes:
        says = "The disk is nearly full: senders are told to try later."
        return Answer(question=question, level="bad", short="No", says=says)
    came = look.last_seconds_ago
    says = "No image has ever come." if came is None else f"Last image {ago(came)} ago."
    if look.open_associations:
        says = f"{look.open_associations} associations open. {says}"
        return Answer(question=question, level="good", short="Yes, now", says=says)
    return Answer(question=question, level="good", short="Ready", says=says)


def _analysing(look: Look) -> Answer:
    question = "Analysing"
    fault = _fault(question, "work", look) or _fault(question, "tick", look)
    if fault:
        return fault
    waits = f"{look.queued.depth} waiting" if look.queued.depth else "nothing waits"
    if look.queued.depth and look.queued.oldest_seconds is not None:
        waits += f", the oldest for {ago(look.queued.oldest_seconds)}"
    late = (look.queued.oldest_seconds or 0.0) > LONG_SECONDS
    if look.running.depth:
        says = f"{look.running.depth} under way, {waits}."
        level: Level = "watch" if late else "good"
        return Answer(question=question, level=level, short="Yes, now", says=says)
    return Answer(
        question=question,
        level="watch" if late else "good",
        short="Waiting" if look.queued.depth else "Ready",
        says=waits[0].upper() + waits[1:] + ".",
    )


def _sending(look: Look) -> Answer:
    question = "Sending"
    fault = _fault(question, "send", look)
    if fault:
        return fault
    waits = "Nothing waits." if not look.deliveries.depth else f"{look.deliveries.depth} waiting"
    if look.deliveries.depth:
        waits += f", the oldest for {ago(look.deliveries.oldest_seconds)}."
    if look.away:
        says = f"No answer from {', '.join(look.away)}. {waits}"
        return Answer(question=question, level="bad", short="Trouble", says=says)
    if look.paused:
        says = f"Paused: {', '.join(look.paused)}. {waits}"
        return Answer(question=question, level="watch", short="Paused", says=says)
    short = "Yes, now" if look.deliveries.depth else "Ready"
    return Answer(question=question, level="good", short=short, says=waits)


def audit_trail(waiting: int, oldest_seconds: float, failing: tuple[str, ...]) -> Answer:
    """Return how the audit trail fares.

    Args:
        waiting: records that are not yet wherever they should be.
        oldest_seconds: for how long the first of them has waited.
        failing: places that cannot be used, with why.
    """
    question = "Audit trail"
    waits = f"{waiting} records wait, the oldest for {ago(oldest_seconds)}." if waiting else ""
    if failing:
        says = f"Not reached: {'; '.join(failing)}. {waits}".rstrip()
        return Answer(question=question, level="bad", short="Trouble", says=says)
    level: Level = "watch" if oldest_seconds > LONG_SECONDS else "good"
    short = "Waiting" if level == "watch" else "Kept"
    return Answer(question=question, level=level, short=short, says=waits or "Nothing waits.")
