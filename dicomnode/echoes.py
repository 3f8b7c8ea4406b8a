"""Whether peers and services answer: C-ECHO, a probe by HTTP, C-FIND. Loads no model."""

from __future__ import annotations

import os

from dicomnode.domain.identifiers import derive_uid
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.web import Web
from dicomnode.errors import SettingsError
from dicomnode.network.progress import Pace
from dicomnode.network.query import find_study
from dicomnode.network.scu import ConnectError, associate
from dicomnode.network.stow import SecretError, StowService, find_credentials
from dicomnode.services.peers import call_of
from dicomnode.settings import Peer, Settings


def echo_destination(settings: Settings, name: str) -> Outcome:
    """Ask a destination for Verification."""
    if name not in settings.destinations:
        raise SettingsError(
            f"no destination is named {name!r} (destinations: {', '.join(settings.destinations)})"
        )
    web = settings.destinations[name].web
    if web is not None:
        return _probe(web, settings.send.timeout_seconds)
    folder = settings.destinations[name].folder
    if folder is not None:
        if os.access(folder, os.W_OK | os.X_OK):
            return Done()
        return Retry("FOLDER_UNAVAILABLE", f"{folder} is not there, or may not be written")
    peer = settings.peer_of(name)
    return Refuse("NO_PORT", "it has no peer") if peer is None else _echo(settings, peer)


def echo_peer(settings: Settings, name: str) -> Outcome:
    """Ask a peer for Verification, whatever it is configured for."""
    if name not in settings.peers:
        raise SettingsError(f"no peer is named {name!r} (peers: {', '.join(settings.peers)})")
    return _echo(settings, settings.peers[name])


def _echo(settings: Settings, peer: Peer) -> Outcome:
    if peer.port is None:
        return Refuse("NO_PORT", "the peer has no port")
    try:
        with associate(
            calling_ae=settings.node.ae_title,
            called_ae=peer.ae_title,
            host=peer.host,
            port=peer.port,
            contexts=(),
            timeout_seconds=settings.send.timeout_seconds,
            tls=peer.tls,
        ) as association:
            return association.echo()
    except ConnectError as error:
        return Retry(error.code, error.detail)


def _probe(web: Web, timeout_seconds: float) -> Outcome:
    try:
        credentials = find_credentials(web)
    except SecretError as error:
        return Refuse("NO_SECRET", str(error))
    service = StowService(web, credentials, timeout_seconds, Pace(None), lambda: False)
    try:
        return service.probe()
    finally:
        service.close()


def query_peer(settings: Settings, name: str) -> Outcome:
    """Ask a peer by C-FIND for a study that nobody has: whether it answers queries of this node."""
    if name not in settings.peers:
        raise SettingsError(f"no peer is named {name!r} (peers: {', '.join(settings.peers)})")
    peer = settings.peers[name]
    if not peer.query:
        raise SettingsError(f"peers.{name}: may not be asked: it lacks `query: true`")
    answer = find_study(call_of(settings, peer), derive_uid("dicomnode echo"))
    return answer if isinstance(answer, Retry | Refuse) else Done()
