"""Whether what a command says with `--json` has the shape that is written down for it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from dicomnode.shapes import SHAPES


def assert_said(command: str, value: Any) -> None:
    """Compare a value with the shape of a command, key by key."""
    faults = list(faults_of(value, SHAPES[command], command))
    assert faults == [], faults


def faults_of(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Yield what differs: a key too many or too few, or a value of another type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.NotRequired:
        yield from faults_of(value, arguments[0], where)
    elif origin in (types.UnionType, typing.Union):
        options = [list(faults_of(value, one, where)) for one in arguments]
        if all(options):
            yield min(options, key=len)[0]
    elif not _is(value, kind):
        yield f"{where}: {value!r} is no {kind}"
    elif origin is list:
        for index, item in enumerate(value):
            yield from faults_of(item, arguments[0], f"{where}[{index}]")
    elif origin is dict:
        for key, item in value.items():
            yield from faults_of(item, arguments[1], f"{where}.{key}")
    elif typing.is_typeddict(kind):
        yield from _faults_of_object(value, kind, where)


def _faults_of_object(value: dict[str, Any], kind: Any, where: str) -> Iterator[str]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for key in sorted({*hints, *value}):
        if key not in hints:
            yield f"{where}.{key}: not written down"
        elif key in value:
            yield from faults_of(value[key], hints[key], f"{where}.{key}")
        elif typing.get_origin(hints[key]) is not typing.NotRequired:
            yield f"{where}.{key}: missing"


def _is(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if typing.is_typeddict(kind):
        return isinstance(value, dict)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, typing.get_origin(kind) or kind)
