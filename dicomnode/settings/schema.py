"""The configuration's JSON Schema (2020-12), with which editors complete and check the YAML."""

from __future__ import annotations

import json
from typing import Any

from dicomnode.settings.models import Settings

VARIABLE_SCHEMA = {"$ref": "#/$defs/Variable"}
TYPED = {"integer", "number", "boolean"}
ONE_OR_MANY = {("Peer", "addresses"), ("Peer", "certificate_sha256"), ("Work", "devices")}
"""Lists of texts that may be a text alone."""


def schema() -> dict[str, Any]:
    """Return the schema of a configuration as it is written.

    Beyond what the settings themselves say: a section may be empty, a list of one its element, and
    every value `${NAME}`. Names that must exist elsewhere are left to `dicomnode check`.
    """
    made = Settings.model_json_schema()
    for model, key in ONE_OR_MANY:
        properties = made["$defs"][model]["properties"]
        known = properties[key]
        kept = {name: known.pop(name) for name in ("description", "default") if name in known}
        known.pop("title", None)
        properties[key] = {**kept, "anyOf": [known, {"type": "string"}]}
    for key, section in made["properties"].items():
        made["properties"][key] = {"anyOf": [section, {"type": "null"}]}
    described = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dicomnode",
        "type": ["object", "null"],
    }
    written: dict[str, Any] = _written(made)
    written["$defs"]["Variable"] = {
        "description": "An environment variable",
        "type": "string",
        "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*\}$",
    }
    return written | described


def text() -> str:
    """Return the schema as the file `config/dicomnode.schema.json` holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _written(part: Any) -> Any:
    """Return a part of the schema for what stands in the file, before variables are filled in."""
    if isinstance(part, list):
        return [_written(one) for one in part]
    if not isinstance(part, dict):
        return part
    # Titles only repeat the keys.
    inner = {
        key: _written(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
    }
    kept = {key: inner.pop(key) for key in ("description", "default") if key in inner}
    if inner.get("type") in TYPED:
        return {**kept, "anyOf": [inner, VARIABLE_SCHEMA]}
    if inner.get("type") == "string" and ({"enum", "pattern", "const"} & set(inner)):
        return {**kept, "anyOf": [inner, VARIABLE_SCHEMA]}
    return {**kept, **inner}
