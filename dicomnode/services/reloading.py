"""SIGHUP: a role reads its configuration again, and what can change while it runs changes."""

from __future__ import annotations

import logging
import queue
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from dicomnode.errors import SettingsError
from dicomnode.ledger import outbox
from dicomnode.settings import load
from dicomnode.settings.reloading import reload

if TYPE_CHECKING:
    from dicomnode.services.common import Context

log = logging.getLogger(__name__)


def reload_on_hangup(context: Context, config: Path) -> None:
    """Read the configuration again at every SIGHUP, in a thread of its own."""
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()  # its put is made for signal handlers

    def hang_up(_number: int, _frame: FrameType | None) -> None:
        asked.put(None)

    def run() -> None:
        while True:
            asked.get()
            reload_now(context, config)

    signal.signal(signal.SIGHUP, hang_up)
    threading.Thread(target=run, daemon=True, name="reload").start()


def reload_now(context: Context, config: Path) -> None:
    """Read the configuration, take up what applies at once; a wrong one changes nothing."""
    try:
        read = load(config)
    except SettingsError as error:
        context.remark = "the configuration has faults and was not reloaded"
        log.error("CONFIG_REJECTED", extra={"fields": {"detail": str(error)}})
        return
    found = reload(context.settings, read)
    context.settings = found.settings
    # What switches the audit trail off stands in it, too.
    room = found.settings.audit.room
    context.ledger.audit_room = room or context.ledger.audit_room
    context.remark = f"waits for a restart: {', '.join(found.waiting)}" if found.waiting else ""
    for act in context.on_reload:
        act()
    said = {"changed": ",".join(found.changed) or "nothing"}
    log.info("CONFIG_RELOADED", extra={"fields": said})
    role = context.spool.tmp.name
    outbox.record_now(context.ledger, "CONFIG_RELOADED", detail=said["changed"], role=role)
    context.ledger.audit_room = room
    if found.waiting:
        waiting = {"keys": ",".join(found.waiting)}
        log.warning("CONFIG_WAITS_FOR_RESTART", extra={"fields": waiting})
