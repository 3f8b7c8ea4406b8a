"""What becomes of a result set at a destination that refuses one of its objects: a decision."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from dicomnode.domain.alternatives import in_preference
from dicomnode.domain.identifiers import SOPClassUID

REFUSED_CLASS = frozenset({"CONTEXT_REFUSED", "SOP_CLASS_NOT_SUPPORTED"})
"""Codes of refusals that are about an object's SOP class, not about the object."""
REFERS_TO_REFUSED = "REFERS_TO_REFUSED"


class Place(Enum):
    """Where the object stands that goes, or went, for a kind of the profile."""

    THERE = "there"
    """The destination has it, or it is on its way and cannot be called back."""
    WAITS = "waits"
    """Another may still go for it."""
    LOST = "lost"
    """Refused for what is in it, held or cancelled: nothing goes for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A result instance that may go."""

    id: int
    kind: str
    sop_class_uid: SOPClassUID
    refers_to: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The object that stands for a kind of the destination's profile."""

    wanted: str
    """That kind."""
    result: int
    """The object's id among the candidates."""
    place: Place


def fall_back(
    made: Sequence[Candidate],
    standings: Sequence[Standing],
    refused: Collection[SOPClassUID],
) -> Mapping[str, Candidate | None]:
    """Say which object goes now for each kind that may still change.

    Args:
        made: the result set, in the order in which it was made.
        standings: one for each kind of the profile, in the order in which they are sent.
        refused: SOP Classes that the destination has refused.

    Returns:
        Kind of the profile -> what goes for it, which may be what stands for it now; None: nothing
        that the destination takes and that refers to nothing it lacks.
    """
    by_id = {item.id: item for item in made}
    taken = {one.result for one in standings if one.place is Place.THERE}
    took: set[str] = set()
    found: dict[str, Candidate | None] = {}
    for standing in standings:
        if standing.place is Place.THERE:
            took.add(by_id[standing.result].kind)
        if standing.place is not Place.WAITS:
            continue
        options = in_preference(made, standing.wanted, took, refused)
        best = next((item for item in options if item.id not in taken), None)
        found[standing.wanted] = best
        if best is not None:
            taken.add(best.id)
            took.add(best.kind)
    return found
