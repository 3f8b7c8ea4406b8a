"""Which objects a destination gets, and in which order. Data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from dicomnode.domain.plans import DEFAULT_OBJECTS, LABELMAP, OBJECTS, PREVIEW, RTSTRUCT, SR

PROFILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pacs": DEFAULT_OBJECTS,
        "modern": (LABELMAP, PREVIEW, SR),
        "pictures": (PREVIEW,),
        "rtstruct": (RTSTRUCT,),
    }
)


def in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of objects once each, in the order in which they are sent.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    wanted = set(kinds)
    unknown = sorted(wanted - set(OBJECTS))
    if unknown:
        raise ValueError(f"unknown object {unknown[0]!r}; known are {', '.join(OBJECTS)}")
    if not wanted:
        raise ValueError(f"expected at least one of {', '.join(OBJECTS)}")
    return tuple(kind for kind in OBJECTS if kind in wanted)
