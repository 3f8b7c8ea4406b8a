"""The send role: stores results at their destinations, for days if it has to.

One thread a destination; which they are follows from the settings, also when these change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from dicomnode.ledger import deliveries
from dicomnode.services.archives import PeerSender, ServiceSender
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.services.crew import Crew
from dicomnode.services.folders import FolderSender
from dicomnode.services.promising import Promiser
from dicomnode.services.sending import Sender
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "send"


def sender_of(context: Context, name: str, is_over: Callable[[], bool] = lambda: False) -> Sender:
    """Return what brings results to a destination: a folder, a DICOMweb service or a peer."""
    terms, peer = context.settings.destinations[name], context.settings.peer_of(name)
    if terms.folder is not None:
        return FolderSender(context, name, is_over, Path(terms.folder))
    if terms.web is not None:
        return ServiceSender(context, name, is_over, terms.web)
    if peer is not None:
        return PeerSender(context, name, is_over, peer)
    raise ValueError(f"{name} is no folder, service or peer; the settings do not allow that")


def _bring(context: Context, name: str) -> None:
    """Send to one destination as long as there is one of that name.

    What is on its way when the settings change arrives by the old ones.
    """
    while not context.stop.is_set():
        settings = context.settings
        if name not in settings.destinations:
            return
        kept = replace(context, settings=settings)
        sender_of(kept, name, partial(_has_others, context, settings)).run_until_stopped()


def _has_others(context: Context, settings: Settings) -> bool:
    return context.settings is not settings


def _loops(context: Context) -> dict[str, Callable[[], None]]:
    settings = context.settings
    loops = {name: partial(_bring, context, name) for name in settings.destinations}
    if any(peer.commit_here for peer in settings.peers.values()):
        return {**loops, "storage commitment": Promiser(context).run_until_stopped}
    return {**loops}


def run(settings: Settings, config: Path | None = None) -> None:
    """Send until the role is to stop."""
    with role(settings, NAME, config) as context:
        with context.ledger.transaction() as tx:
            count = deliveries.take_back(tx)
        if count:
            log.warning("DELIVERIES_TAKEN_BACK", extra={"fields": {"count": count}})
        crew = Crew(context, partial(_loops, context))

        def doing() -> str:
            crew.keep()  # again: after a reload there may be others
            return f"{len(context.settings.destinations)} destinations"

        crew.keep()
        try:
            beat_until_stopped(context, NAME, doing)
        finally:
            crew.end()
