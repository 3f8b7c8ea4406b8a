"""Which objects a destination gets, in which order, and which of them refer to which. Data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from dicomnode.domain.plans import DEFAULT_OBJECTS, LABELMAP, OBJECTS, PREVIEW, RTSTRUCT, SEG, SR

PROFILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pacs": DEFAULT_OBJECTS,
        "modern": (LABELMAP, PREVIEW),
        "pictures": (PREVIEW,),
        "rtstruct": (RTSTRUCT,),
    }
)
REFERS_TO: Mapping[str, str] = MappingProxyType({SR: SEG})
"""An object means nothing to a destination that did not take the other one."""


def in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of objects once each, in the order in which they are sent.

    Raises:
        ValueError: there is none, one is unknown, or one refers to another that is not there.
    """
    wanted = set(kinds)
    unknown = sorted(wanted - set(OBJECTS))
    if unknown:
        raise ValueError(f"unknown object {unknown[0]!r}; known are {', '.join(OBJECTS)}")
    if not wanted:
        raise ValueError(f"expected at least one of {', '.join(OBJECTS)}")
    for kind, other in REFERS_TO.items():
        if kind in wanted and other not in wanted:
            raise ValueError(f"{kind} refers to {other}: name {other} too")
    return tuple(kind for kind in OBJECTS if kind in wanted)
