"""How a peer of the configuration is called."""

from __future__ import annotations

from dicomnode.network.requesting import Call
from dicomnode.settings import Peer, Settings


def call_of(settings: Settings, peer: Peer) -> Call:
    """Return how a peer is called as this node; one without a port at DICOM's own (PS3.8 9.1.1)."""
    return Call(
        calling_ae=settings.node.ae_title,
        called_ae=peer.ae_title,
        host=peer.host,
        port=peer.port or 104,
        timeout_seconds=settings.send.timeout_seconds,
        tls=peer.tls,
    )
