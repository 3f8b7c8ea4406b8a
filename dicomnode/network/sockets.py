"""What both sides of an association set on their sockets and propose."""

from __future__ import annotations

import socket
from typing import Any

VERIFICATION = "1.2.840.10008.1.1"
"""Verification SOP Class (PS3.4 annex A)."""


def no_delay(event: Any) -> None:
    """Send at once: Nagle's algorithm, which pynetdicom leaves on, costs about 40 ms an object."""
    transport = event.assoc.dul.socket
    if transport is not None and transport.socket is not None:
        transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
