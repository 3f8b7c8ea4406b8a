"""What the shell offers when a name of the configuration is typed. A configuration that cannot be
read offers nothing: whoever presses Tab is told so by the command itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from dicomnode.errors import DicomnodeError
from dicomnode.settings import Settings, load


def _offered(names: Callable[[Settings], Iterable[str]]) -> Callable[..., list[str]]:
    def complete(context: typer.Context, incomplete: str) -> list[str]:
        given = context.params.get("config_option") or context.params.get("config")
        try:
            found = names(load(Path(given) if given else None))
        except (DicomnodeError, OSError):
            return []
        return sorted(name for name in found if name.startswith(incomplete))

    return complete


destinations = _offered(lambda settings: settings.destinations)
archives = _offered(lambda settings: [name for name, peer in settings.peers.items() if peer.query])
"""Peers that may be asked."""
destinations_and_callable = _offered(
    lambda settings: {
        *settings.destinations,
        *(name for name, peer in settings.peers.items() if peer.port is not None or peer.query),
    }
)
"""Destinations, and peers that have a port or may be asked."""
titles = _offered(lambda settings: {peer.ae_title for peer in settings.peers.values()})
"""AE titles."""


def states(life: str) -> Callable[[str], list[str]]:
    """Return what offers the states of studies, jobs or deliveries."""

    def complete(incomplete: str) -> list[str]:
        from dicomnode.domain.lifecycle import LIVES

        known = {state for step in LIVES[life].values() for state in (*step.sources, step.target)}
        return sorted(state for state in known if state.startswith(incomplete))

    return complete


def models(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the models of the catalog."""
    from inference.catalog import CatalogError, load_catalog

    given = context.params.get("config")
    try:
        settings = load(Path(given) if given else None)
        ids = load_catalog(settings.work.model_folders, settings.weights_folder).ids()
    except (DicomnodeError, CatalogError, OSError):
        return []
    return [one for one in ids if one.startswith(incomplete)]
