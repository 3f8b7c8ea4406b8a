"""What every role has: settings, spool, ledger, a stop signal and a sign of life."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType

from dicomnode.errors import DicomnodeError, LedgerError
from dicomnode.gpus import Gpu
from dicomnode.ledger import Ledger, nodes, presence
from dicomnode.ledger.schema import upgrade
from dicomnode.memory import settle
from dicomnode.services.notifying import ALIVE, READY, STOPPING, notify
from dicomnode.services.reloading import reload_on_hangup
from dicomnode.settings import Settings
from dicomnode.spool import Spool

log = logging.getLogger(__name__)

LIFELINE = "DICOMNODE_LIFELINE"
"""Set by a supervisor: standard input ends when the supervisor does, and so does the role."""
BEAT_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class Context:
    """What a role works with."""

    settings: Settings
    """Another object after a reload, and never changed itself: keep it for one piece of work."""
    spool: Spool
    ledger: Ledger
    patient_key: bytes
    stop: threading.Event
    remark: str = ""
    """What `status` says of the role beside what it does."""
    gpus: Callable[[], tuple[Gpu, ...]] = tuple
    """Those that the role works with, as they are now."""
    on_reload: list[Callable[[], None]] = field(default_factory=list)
    """Called after the settings have changed."""


def open_context(settings: Settings, name: str) -> Context:
    """Open a role's spool and ledger, bring its schema up to date and register this node.

    Raises:
        DicomnodeError: one of them cannot be used.
    """
    spool = Spool(settings.spool_folder, name)
    try:
        spool.create()
        key = secret_in(settings.patient_key_file)
    except OSError as error:
        raise DicomnodeError(f"storage cannot be used: {error}") from error
    ledger = Ledger(settings.ledger_url, settings.node.id, audit_room=settings.audit.room)
    upgrade(ledger)
    with ledger.transaction() as tx:
        nodes.register_node(tx, settings.node.ae_title, sha256(key).hexdigest()[:16])
    return Context(
        settings=settings, spool=spool, ledger=ledger, patient_key=key, stop=threading.Event()
    )


def secret_in(path: Path) -> bytes:
    """Read a key, such as the one that hashes patients, or make it, for this user's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    if not path.exists():
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another role was first: use its key
                os.link(fresh, path)
        finally:
            fresh.unlink()
    key = path.read_bytes()
    if len(key) < 16:
        raise DicomnodeError(f"{path}: a key has at least 16 bytes, found {len(key)}")
    return key


@contextmanager
def role(settings: Settings, name: str, config: Path | None = None) -> Iterator[Context]:
    """Run a role: hold its place, end on SIGTERM, SIGINT or with the supervisor, say it lives.

    Args:
        settings: what it begins with.
        name: of the role.
        config: where they were read from, and are again at SIGHUP.
    """
    settle()
    context = open_context(settings, name)

    def end(_number: int, _frame: FrameType | None) -> None:
        context.stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if os.environ.get(LIFELINE):
        threading.Thread(target=_watch_lifeline, args=(context.stop,), daemon=True).start()
    with context.spool.only(name):
        with context.ledger.transaction() as tx:
            presence.start(tx, name, os.getpid())
        if config is not None:
            reload_on_hangup(context, config)
        log.info("ROLE_STARTED", extra={"fields": {"pid": os.getpid()}})
        try:
            yield context
        finally:
            notify(STOPPING)
            _leave(context, name)
            context.ledger.close()
            log.info("ROLE_ENDED")


def _leave(context: Context, name: str) -> None:
    try:
        with context.ledger.transaction() as tx:
            presence.leave(tx, name)
    except LedgerError as error:
        log.warning("LEDGER_UNAVAILABLE", extra={"fields": {"detail": str(error)}})


def _watch_lifeline(stop: threading.Event) -> None:
    # Unbuffered: a thread that holds standard input's lock is a fatal error when Python ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    stop.set()


def beat_until_stopped(context: Context, name: str, doing: Callable[[], str]) -> None:
    """Say every few seconds that the role lives and what it does, until it is to stop."""
    notify(READY)
    while not context.stop.wait(BEAT_SECONDS):
        beat(context, name, doing())


def beat(context: Context, name: str, doing: str) -> None:
    """Say once that the role lives; a ledger that is away is logged and no reason to end."""
    doing = f"{doing}; {context.remark}" if context.remark else doing
    notify(ALIVE, status=doing)
    gpus = [asdict(one) for one in context.gpus()]
    try:
        with context.ledger.transaction() as tx:
            presence.beat(tx, name, os.getpid(), doing, gpus)
    except LedgerError as error:
        log.warning("LEDGER_UNAVAILABLE", extra={"fields": {"detail": str(error)}})
