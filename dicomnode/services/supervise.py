"""`dicomnode run`: the roles of one machine as child processes; one that dies is started again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

from dicomnode.services.common import LIFELINE
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

ROLES = ("receive", "tick", "work", "send", "web")
GRACE_SECONDS = 15.0
RESTART_FIRST_SECONDS = 0.5
RESTART_CEILING_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A role that has run this long before it died is started again at once."""


@dataclass(slots=True)
class _Child:
    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = field(default=0)


def roles_of(settings: Settings) -> tuple[str, ...]:
    """Return the roles that `run` starts: the page only where it is wanted and installed."""
    if not settings.web.enabled:
        return tuple(role for role in ROLES if role != "web")
    if find_spec("uvicorn") is None:
        log.warning("WEB_NOT_INSTALLED", extra={"fields": {"extra": "dicomnode[web]"}})
        return tuple(role for role in ROLES if role != "web")
    return ROLES


def supervise(config: Path, roles: Sequence[str]) -> int:
    """Run the roles until SIGTERM or SIGINT; return the exit code. SIGHUP is handed on to them.

    A child's standard input is a pipe from here: it ends when this process does, however it ends,
    and the child with it. No role is left behind to hold the port.
    """
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    children = [_Child(role) for role in roles]

    def hang_up(number: int, _frame: FrameType | None) -> None:
        for child in children:
            if child.process is not None:
                child.process.send_signal(number)

    if not sys.stdin.isatty():  # a terminal that goes away ends what runs on it
        signal.signal(signal.SIGHUP, hang_up)
    while not stop.wait(0.1):
        for child in children:
            _keep_alive(child, config)
    return _end(children)


def _keep_alive(child: _Child, config: Path) -> None:
    now = time.monotonic()
    if child.process is not None:
        code = child.process.poll()
        if code is None:
            return
        steady = now - child.started_at >= STEADY_SECONDS
        child.failures = 0 if steady else child.failures + 1
        wait = 0.0 if steady else RESTART_FIRST_SECONDS * 2.0 ** min(child.failures - 1, 10)
        child.start_at = now + min(wait, RESTART_CEILING_SECONDS)
        child.process = None
        log.warning("ROLE_DIED", extra={"fields": {"role": child.role, "exit_code": code}})
    if now >= child.start_at:
        child.process = subprocess.Popen(
            [sys.executable, "-m", "dicomnode", child.role, str(config)],
            stdin=subprocess.PIPE,
            env={**os.environ, LIFELINE: "1"},
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends its children
        )
        child.started_at = now


def _end(children: list[_Child]) -> int:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    clean = True
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("ROLE_KILLED", extra={"fields": {"pid": process.pid}})
            process.kill()
            process.wait()
        clean = clean and process.returncode == 0
    return 0 if clean else 1
