"""What does not stand in the configuration itself: `${NAME}` anywhere, `file:PATH` for a secret.

A secret is never shown, wherever it stands; nor is a value that came from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from dicomnode.settings.faults import Location

SECRETS = ("storage.ledger",)
"""Keys whose values are secrets, as patterns: these also take `file:PATH`."""
HIDDEN = (*SECRETS, "destinations.*.stow_token", "destinations.*.stow_password")
"""Keys whose values are never shown: somebody may have written a secret itself there."""
VARIABLE = re.compile(r"\$(?P<escaped>\$(?=\{))|\$\{(?P<name>[^}]*)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_BYTES = 65536
NULL, TEXT = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Unfilled:
    """A value that cannot be filled in."""

    location: Location
    message: str


@dataclass(frozen=True, slots=True)
class Filled:
    """What became of a configuration's values."""

    values: frozenset[str]
    """What was filled in: never shown."""
    unfilled: tuple[Unfilled, ...]

    def hides(self, location: Location, value: object) -> bool:
        """Whether a value, or what stands at a place, is never shown."""
        return _is_one_of(HIDDEN, location) or str(value) in self.values


def _is_one_of(patterns: tuple[str, ...], location: Location) -> bool:
    """Whether patterns name a place; `<<` takes in another mapping and is no place."""
    key = ".".join(part for part in location if part != "<<")
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def fill(
    root: yaml.Node | None, base: Path, environment: Mapping[str, str] | None = None
) -> Filled:
    """Put into a YAML tree what stands in the environment and in files of secrets.

    A plain `${PORT}` becomes what YAML makes of the variable's text, a number for one; a quoted one
    and a secret stay texts. What a variable holds is a value and never YAML of its own.

    Args:
        root: of the tree; its scalars are changed in place.
        base: the folder that `file:` is relative to.
        environment: default: this process's.
    """
    known = os.environ if environment is None else environment
    values: set[str] = set()
    unfilled: list[Unfilled] = []
    for location, node in _scalars(root, (), set()):
        secret, given = _is_one_of(SECRETS, location), node.value
        try:
            text = VARIABLE.sub(lambda found: _variable(found, known), given)
            if secret and text.startswith("file:"):
                text = _read(base / Path(text.removeprefix("file:")).expanduser())
        except ValueError as error:
            unfilled.append(Unfilled(location, str(error)))
            continue
        if text != given:
            values.add(text)
            node.value = text
            if node.style is None:
                loader: Any = yaml.SafeLoader("")  # without types here
                node.tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        if secret and node.tag != NULL:
            node.tag = TEXT
    return Filled(frozenset(values), tuple(unfilled))


def _scalars(
    node: yaml.Node | None, location: Location, seen: set[int]
) -> Iterator[tuple[Location, yaml.ScalarNode]]:
    """Yield the scalars of a tree, each once however often an alias names it."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield location, node
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, (*location, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _scalars(value, (*location, str(index)), seen)


def _variable(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if found["escaped"]:
        return "$"
    name = found["name"]
    if not NAME.fullmatch(name):
        raise ValueError(f"${{{name}}} is no name of an environment variable; $${{ stands for ${{")
    if name not in environment:
        raise ValueError(f"the environment variable {name} is not set")
    return environment[name]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if not text or len(content) > MAX_BYTES:
        raise ValueError(f"{path} is {'too long' if text else 'empty'}")
    return text
