"""What of a changed configuration applies while a role runs, and what waits for its next start."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from dicomnode.settings.models import Settings

RELOADED = (
    "peers",
    "destinations",
    "rules",
    "assembly",
    "choosing",
    "content",
    "quality",
    "send",
    "fetch",
    "retention",
    "audit",
)
"""Sections that apply at once, whole. The others are ports, places, processes and limits, which a
role takes up when it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """What follows from a configuration that was read again."""

    settings: Settings
    """What applies from now on."""
    changed: tuple[str, ...]
    """Sections that are different from now on."""
    waiting: tuple[str, ...]
    """Keys, or sections, that are different in the file and apply when the role starts again."""


def reload(running: Settings, read: Settings) -> Reload:
    """Return what applies of a configuration that was read while another one is running."""
    changed = tuple(name for name in RELOADED if getattr(read, name) != getattr(running, name))
    waiting = tuple(
        key
        for name in Settings.model_fields
        if name not in RELOADED
        for key in _different(name, getattr(running, name), getattr(read, name))
    )
    sections = {
        name: getattr(read if name in RELOADED else running, name) for name in Settings.model_fields
    }
    try:
        settings = Settings.model_validate(sections)
    except ValidationError:  # what is new goes only with what has to wait, as certificates with TLS
        return Reload(settings=running, changed=(), waiting=(*changed, *waiting))
    return Reload(settings=settings, changed=changed, waiting=waiting)


def _different(name: str, old: object, new: object) -> list[str]:
    if not isinstance(old, BaseModel) or not isinstance(new, BaseModel):
        return [name] if old != new else []
    keys = type(old).model_fields
    return [f"{name}.{key}" for key in keys if getattr(old, key) != getattr(new, key)]
