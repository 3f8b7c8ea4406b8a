"""Which objects a destination gets, and in which order. Data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from dicomnode.domain.plans import (
    DEFAULT_OBJECTS,
    FILES,
    LABELMAP,
    OBJECTS,
    PREVIEW,
    RTSTRUCT,
    SR,
)

PROFILES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pacs": DEFAULT_OBJECTS,
        "modern": (LABELMAP, PREVIEW, SR),
        "pictures": (PREVIEW,),
        "rtstruct": (RTSTRUCT,),
        "research": FILES,
    }
)


def in_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of objects once each, in the order in which they are sent.

    Raises:
        ValueError: there is none, or one is unknown.
    """
    wanted, known = set(kinds), (*OBJECTS, *FILES)
    unknown = sorted(wanted - set(known))
    if unknown:
        raise ValueError(f"unknown object {unknown[0]!r}; known are {', '.join(known)}")
    if not wanted:
        raise ValueError(f"expected at least one of {', '.join(known)}")
    return tuple(kind for kind in known if kind in wanted)
