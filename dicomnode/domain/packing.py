"""Records that go from process to process for every instance: pickled as their bare values.

What `dataclasses` does for frozen records with slots looks up every field by its name, both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any


class Packed:
    """A base of frozen dataclasses with slots."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the class and the values."""
        cls: Any = type(self)
        return _unpack, (cls, _slots(cls)[0](self))


@cache
def _slots(cls: Any) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[..., None], ...]]:
    """Return what reads all values of a record, and what sets each."""
    names = [field.name for field in fields(cls)]
    read = attrgetter(*names)
    setters = tuple(getattr(cls, name).__set__ for name in names)
    return (read if len(names) > 1 else lambda record: (read(record),)), setters


def _unpack(cls: Any, values: tuple[Any, ...]) -> Any:
    record = object.__new__(cls)
    for setter, value in zip(_slots(cls)[1], values, strict=True):
        setter(record, value)
    return record
