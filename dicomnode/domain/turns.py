"""Whose turn is it? The most urgent job's, but every few claims the one's that waits longest.

No job waits for ever: of the jobs that wait, the oldest one goes after at most `FAIR_EVERY` claims,
however many urgent ones keep coming.
"""

from __future__ import annotations

from enum import StrEnum

STAT = 0
ROUTINE = 1
FAIR_EVERY = 4

URGENT_REQUESTS = frozenset({"STAT", "HIGH"})
"""Requested Procedure Priority (0040,1003), PS3.3 C.4.11. The Priority of a C-STORE request is not
believed: it is how the sender's queue is set up, and says nothing of the patient."""


class Turn(StrEnum):
    """Which of the waiting jobs is claimed."""

    MOST_URGENT = "most urgent"
    """STAT first, then the newest study."""
    LONGEST_WAITING = "longest waiting"


def turn(claims: int) -> Turn:
    """Return whose turn it is after so many claims of this node."""
    return Turn.LONGEST_WAITING if claims % FAIR_EVERY == FAIR_EVERY - 1 else Turn.MOST_URGENT


def urgency(*, rule_says_stat: bool, requested: str) -> int:
    """Return a job's urgency: the more urgent of what its rule and its images say."""
    return STAT if rule_says_stat or requested.upper() in URGENT_REQUESTS else ROUTINE
