"""What a role tells the service manager: that it is ready, that it lives, what it does.

The protocol of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names. Without one nobody
listens, and nothing is said.
"""

from __future__ import annotations

import contextlib
import os
import socket

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def notify(*said: str, status: str = "") -> None:
    """Tell the service manager; one that does not listen is no reason to end."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    lines = [*said, *([f"STATUS={' '.join(status.split())}"] if status else [])]
    if address.startswith("@"):  # the abstract namespace
        address = f"\0{address[1:]}"
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line,
    ):
        line.setblocking(False)
        line.sendto("\n".join(lines).encode(), address)
