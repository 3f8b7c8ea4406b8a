"""The peers of the configuration, and whether they answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from dicomnode.domain.outcomes import Done, Outcome
from dicomnode.domain.sayings import saying
from dicomnode.echoes import echo_destination, echo_peer
from dicomnode.settings import Settings
from dicomnode.web.rendering import page
from dicomnode.web.site import Act, Call, Came, Page, Values

ECHO_SECONDS = 10.0
MAY = {
    "accept": "send to this node",
    "query": "be asked for studies",
    "authority": "correct identities and reject images",
    "commit_here": "ask this node for storage commitment",
}

Facts = dict[str, Any]


def known(settings: Settings) -> list[Facts]:
    """Return the peers as the configuration has them."""
    return [
        {
            "name": name,
            "ae_title": peer.ae_title,
            "host": peer.host,
            "port": peer.port,
            "is_encrypted": peer.tls is not None,
            "may": [says for key, says in MAY.items() if getattr(peer, key)],
            "destinations": [key for key, one in settings.destinations.items() if one.peer == name],
        }
        for name, peer in settings.peers.items()
    ]


def show(call: Call) -> Response:
    """Show the peers, with who can be tested."""
    return page(call, "peers.html", "Peers", peers=known(call.site.settings))


def answer(call: Call) -> Response:
    """The peers as the configuration has them; a port is where they can be tested."""
    return JSONResponse({"peers": known(call.site.settings)})


def _test(
    what: str, echo: Callable[[Settings, str], Outcome]
) -> Callable[[Call, Values, str], Came]:
    def do(call: Call, values: Values, reason: str) -> Came:
        del reason
        name, settings = values[what], call.site.settings
        timeout = min(ECHO_SECONDS, settings.send.timeout_seconds)
        patient = settings.model_copy(
            update={"send": settings.send.model_copy(update={"timeout_seconds": timeout})}
        )
        outcome = echo(patient, name)
        detail = f"{outcome.code} {getattr(outcome, 'detail', '')}".strip()
        with call.site.ledger.transaction() as tx:
            said = f"{name} by {call.user.name}: {detail}"
            tx.event("PEER_TESTED", detail=said, by=call.user.name)
        if isinstance(outcome, Done):
            return Came(count=1, says=f"{name} answers C-ECHO.")
        says = f"{name} does not answer C-ECHO: {detail}. {saying(outcome.code).what}"
        return Came(count=0, says=says)

    return do


ACTS: tuple[Act, ...] = (
    Act(
        name="test-destination",
        title="Test the destination",
        asks="It is asked for Verification (C-ECHO). Nothing is stored.",
        needs=("destination",),
        do=_test("destination", echo_destination),
    ),
    Act(
        name="test-peer",
        title="Test the peer",
        asks="It is asked for Verification (C-ECHO). Nothing is stored.",
        needs=("peer",),
        do=_test("peer", echo_peer),
    ),
)

SHOWN: tuple[Page, ...] = (Page(path="/peers", handle=show),)
