"""Which result stands in for another where a destination refuses it. Tables and pure choice.

A destination gets at most one object of each kind of its profile. What it refuses, by the SOP
Class or the presentation context, is replaced by the next object that it may get, and never by one
that names an object which it has not: an alternative may go when its SOP Class was not refused and
the destination took everything it refers to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Protocol, TypeVar

from dicomnode.domain.identifiers import SOPClassUID
from dicomnode.domain.plans import (
    FILES,
    LABELMAP,
    OBJECTS,
    PREVIEW,
    REJECTION,
    RTSTRUCT,
    SEG,
    SEG_PARTS,
    SR,
    ReportForm,
)

COMPREHENSIVE_3D_SR = SOPClassUID("1.2.840.10008.5.1.4.1.1.88.34")
COMPREHENSIVE_SR = SOPClassUID("1.2.840.10008.5.1.4.1.1.88.33")
ENHANCED_SR = SOPClassUID("1.2.840.10008.5.1.4.1.1.88.22")

INSTEAD: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        SEG: (SEG,),
        LABELMAP: (LABELMAP, SEG),
        RTSTRUCT: (RTSTRUCT,),
        PREVIEW: (PREVIEW,),
        SR: (SR,),
        REJECTION: (REJECTION,),
        **{kind: (kind,) for kind in (*SEG_PARTS, *FILES)},
    }
)
"""Kinds of results that a destination gets for a kind of its profile, the best first. Of reports
there are several of one kind: see `reports`."""
REPORT_CLASSES = (COMPREHENSIVE_3D_SR, COMPREHENSIVE_SR, ENHANCED_SR)
"""SOP Classes of one and the same report, the best first."""
NAMED_BY_REPORTS = (SEG, *SEG_PARTS, LABELMAP, RTSTRUCT, PREVIEW)
"""Kinds of results that a report may refer to, in the order in which it names them."""


class Made(Protocol):
    """What the choice needs to know of a result instance."""

    @property
    def kind(self) -> str:
        """One of `OBJECTS`."""

    @property
    def sop_class_uid(self) -> SOPClassUID:
        """Of the instance."""

    @property
    def refers_to(self) -> tuple[str, ...]:
        """Kinds of results of the same set that it names; never two of one kind."""


M = TypeVar("M", bound=Made)


def in_preference(
    made: Iterable[M], kind: str, took: Collection[str], refused: Collection[SOPClassUID] = ()
) -> tuple[M, ...]:
    """Return what a destination may get as `kind`, the best first; empty where nothing is left.

    Args:
        made: the result set, in the order in which it was made.
        kind: of the destination's profile.
        took: kinds of results that the destination has, or is still to get and has not refused.
        refused: SOP Classes that it refused.
    """
    order = INSTEAD[kind]
    fit = [
        item
        for item in made
        if item.kind in order
        and item.sop_class_uid not in refused
        and set(item.refers_to) <= set(took)
    ]
    # Stable: of one kind with equally many references the order of making counts.
    return tuple(sorted(fit, key=lambda item: (order.index(item.kind), -len(item.refers_to))))


def first_choice(made: Sequence[M], profile: Sequence[str]) -> tuple[M, ...]:
    """Return what a destination of the profile gets as long as it refuses nothing.

    Args:
        made: the result set, in the order in which it was made.
        profile: kinds, in the order in which they are sent: what refers stands last.
    """
    chosen: dict[str, M] = {}
    for kind in profile:
        best = next(iter(in_preference(made, kind, chosen)), None)
        if best is not None:
            chosen.setdefault(best.kind, best)
    return tuple(chosen.values())


def needed(profile: Collection[str]) -> tuple[str, ...]:
    """Return the kinds that have to be made so that a destination of the profile may fall back."""
    wanted = {other for kind in profile for other in INSTEAD[kind]}
    return tuple(kind for kind in (*OBJECTS, *FILES) if kind in wanted)


def reports(profiles: Iterable[Sequence[str]]) -> tuple[ReportForm, ...]:
    """Return the forms of the report that destinations of these profiles may need, best first.

    Each in every SOP Class: one that names all that the destination is to get, one for each way in
    which it may do without the segmentation, and one that names nothing, which fits always.
    """
    sets = {named for profile in profiles if SR in profile for named in _named(profile)}
    by_worth = sorted(sets, key=lambda named: (-len(named), [_rank(kind) for kind in named]))
    return tuple(
        ReportForm(sop_class_uid=sop_class, refers_to=named)
        for named, sop_class in product(by_worth, REPORT_CLASSES)
    )


def whole_report(objects: Sequence[str]) -> tuple[ReportForm, ...]:
    """Return the one form of the report that names all other objects, in its best SOP Class."""
    named = tuple(kind for kind in NAMED_BY_REPORTS if kind in objects)
    return (ReportForm(sop_class_uid=REPORT_CLASSES[0], refers_to=named),)


def _named(profile: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield what reports for a destination of the profile have to name."""
    parts = tuple(kind for kind in profile if kind in SEG_PARTS)
    whole = [kind for kind in profile if SEG in INSTEAD[kind]]
    others = [kind for kind in profile if kind in (RTSTRUCT, PREVIEW)]
    # The parts are of one SOP Class, so they are taken or refused together.
    ways = [[*((one,) for one in INSTEAD[kind]), ()] for kind in whole] + [[parts, ()]]
    for taken in product(*ways):
        kinds = {kind for some in taken for kind in some}
        yield tuple(sorted((*kinds, *others), key=_rank))
    yield ()


def _rank(kind: str) -> int:
    return NAMED_BY_REPORTS.index(kind)
