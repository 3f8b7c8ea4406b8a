"""Reads and validates a configuration. PyYAML is used in this package and in inference only."""

from __future__ import annotations

import os
from collections.abc import Hashable
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dicomnode.errors import SettingsError
from dicomnode.settings.faults import at, position, told
from dicomnode.settings.models import Settings
from dicomnode.settings.places import place
from dicomnode.settings.secrets import Filled, fill

ENVIRONMENT = "DICOMNODE_CONFIG"
DEFAULT_NAME = "dicomnode.yaml"
SECTIONS = frozenset(Settings.model_fields)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: one of the two would be lost silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "expected a plain word as the key", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def find_config(given: Path | None) -> Path:
    """Return the configuration file: as given, by DICOMNODE_CONFIG, or the one in the package."""
    if given is not None:
        return given
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    return Path(str(resources.files("dicomnode").joinpath(DEFAULT_NAME)))


def load(given: Path | None = None) -> Settings:
    """Read and validate a configuration.

    Raises:
        SettingsError: with one line a fault: `file:line:column: key: what was expected`.
    """
    path = find_config(given)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Settings:
    """Validate the YAML in `text`; `path` is named in faults and is what places are relative to."""
    base = path.resolve().parent
    root, data, filled = _tree(text, path, base)
    if filled.unfilled:
        faults = [
            f"{path}:{position(root, one.location)}: {'.'.join(one.location)}: {one.message}"
            for one in filled.unfilled
        ]
        raise SettingsError("\n".join(faults))
    if not isinstance(data, dict):
        raise SettingsError(f"{path}:1:1: expected keys such as `node:` and `peers:`")
    # A section whose every line is a comment is an empty section.
    data = {key: value for key, value in data.items() if value is not None or key not in SECTIONS}
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        items = error.errors(include_url=False)
        faults = [told(path, root, item, filled.hides) for item in items]
        raise SettingsError("\n".join(faults)) from None  # its text holds what was found
    return place(settings, base)


def _tree(text: str, path: Path, base: Path) -> tuple[yaml.Node | None, Any, Filled]:
    """Return the YAML's nodes, for places, what they say, and what was filled in."""
    try:
        loader = _UniqueKeyLoader(text)
        try:
            root = loader.get_single_node()
            filled = fill(root, base)
            data = {} if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        here = at(error.problem_mark) if error.problem_mark else "1:1"
        raise SettingsError(f"{path}:{here}: not valid YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise SettingsError(f"{path}:{line}:{column}: not valid YAML: {error.reason}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}:1:1: not valid YAML: nested too deeply") from error
    return root, data, filled


def where(path: Path, key: str) -> str:
    """Return `file:line:column: key` of a key such as `peers.CT1.tls.ca`, for later faults."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    return f"{path}:{position(root, tuple(key.split('.')))}: {key}"
