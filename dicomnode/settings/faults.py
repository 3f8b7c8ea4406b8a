"""What is wrong with a configuration: where it stands, what was expected, and what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from dicomnode.settings.models import Settings

Location = tuple[str, ...]
"""The keys, and positions from 0, that lead to a value."""
Hides = Callable[[Location, object], bool]


def told(path: Path, root: yaml.Node | None, item: Any, hides: Hides) -> str:
    """Return `file:line:column: key: what was expected`.

    Args:
        path: of the configuration.
        root: of its YAML.
        item: one of pydantic's errors.
        hides: whether a value, or what stands at a place, is never shown.
    """
    location = tuple(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if message.startswith("@."):  # from a section that does not know its own name
        key, message = message[2:].split(": ", 1)
        location += (key,)
    elif message.startswith("@"):
        key, message = message[1:].split(": ", 1)
        location = tuple(key.split("."))
    location = tuple(part for part in location if not part.startswith("function-"))
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = known_keys(location[:-1])
        meant = difflib.get_close_matches(location[-1], known, 1, 0.6)
        suggested = f"; did you mean {meant[0]!r}?" if meant else ""
        message = f"unknown key; known here: {', '.join(known)}{suggested}"
    elif item["type"] == "missing":
        message = "is missing"
    elif "found" not in message and _is_shown(found := item.get("input"), hides, location, item):
        message = f"{message} (found {found!r})"
    return f"{path}:{position(root, location)}: {'.'.join(location) or '(all)'}: {message}"


def _is_shown(found: object, hides: Hides, location: Location, item: Any) -> bool:
    is_small = "input" in item and not isinstance(found, (dict, list, tuple))
    return is_small and not hides(location, found)


def position(root: yaml.Node | None, location: Location) -> str:
    """Return `line:column`, from 1, of the deepest node on the way to a place."""
    node, found = root, "1:1"
    for part in location:
        following: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    found, following = at(key.start_mark), value
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            following = node.value[int(part)]
            found = at(following.start_mark)
        if following is None:
            break
        node = following
    return found


def at(mark: yaml.Mark) -> str:
    """Return `line:column`, from 1, of a mark."""
    return f"{mark.line + 1}:{mark.column + 1}"


def known_keys(location: Location) -> list[str]:
    """Return the keys that may stand in a mapping."""
    schema = Settings.model_json_schema()
    definitions = schema.get("$defs", {})

    def resolve(part: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if "$ref" in part:
            yield from resolve(definitions[part["$ref"].rsplit("/", 1)[1]])
        for option in part.get("anyOf", []):
            yield from resolve(option)
        yield part

    here = schema
    for name in location:
        steps = [
            step
            for option in resolve(here)
            for step in (
                option.get("properties", {}).get(name),
                option.get("items") if name.isdigit() else None,
                option.get("additionalProperties"),
                *(option.get("patternProperties", {}).values()),
            )
            if isinstance(step, dict)
        ]
        if not steps:
            return []
        here = steps[0]
    return sorted({key for option in resolve(here) for key in option.get("properties", {})})
