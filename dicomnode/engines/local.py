"""A process of this machine that keeps its models warm and analyses one series at a time.

The process that owns the lease never loads a model: whatever the analysis does to its own process
(crash, out of memory, a hang), the dispatcher is there to say so.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dicomnode.domain.plans import Analysis, Plan
from dicomnode.errors import EngineError, Refusal
from inference.catalog import CatalogError

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


class Stopped(Exception):  # noqa: N818 - the dispatcher asked for it; nothing failed
    """The analysis was ended because `keep_going` said no."""


@dataclass(frozen=True, slots=True)
class _Request:
    paths: tuple[Path, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Progress:
    stage: str
    fraction: float


class LocalEngine:
    """One child process; it is started when first needed and replaced when it has to be."""

    def __init__(self, *, analyses_per_process: int, timeout_seconds: float) -> None:
        self._limit = analyses_per_process
        self._timeout = timeout_seconds
        self._process: Any = None
        self._connection: Connection | None = None
        self._count = 0
        self._oom_kills: int | None = None

    def analyze(
        self,
        paths: Sequence[Path],
        plan: Plan,
        progress: Progress,
        keep_going: Callable[[], bool],
        *,
        every_seconds: float = 1.0,
    ) -> Analysis:
        """Analyse the instances of a series.

        Args:
            paths: DICOM files of the series, in any order.
            plan: all that decides the results besides those.
            progress: is told the stage and its fraction (0 to 1).
            keep_going: is asked every `every_seconds`; False ends the analysis.

        A thrifty plan has a process of its own: nothing else is loaded beside it.

        Raises:
            Refusal: the series cannot be analysed honestly.
            EngineError: the process died, ran out of memory or took too long.
            Stopped: `keep_going` said no.
        """
        if plan.thrifty:
            self.close()
        connection = self._ensure()
        self._count += 1
        self._oom_kills = oom_kills()
        try:
            connection.send(_Request(tuple(paths), plan))
            answer = self._await(connection, progress, keep_going, every_seconds)
        except (EOFError, OSError) as error:
            raise self._died() from error
        except BaseException:
            self.close()  # an answer that nobody awaits would be taken for the next series'
            raise
        if plan.thrifty:
            self.close()
        if isinstance(answer, Analysis):
            return answer
        if isinstance(answer, EngineError):
            self.close()  # what failed once may have left something behind
        if isinstance(answer, Exception):
            raise answer
        raise EngineError("PROTOCOL", f"the analysis process answered {type(answer).__name__}")

    def close(self) -> None:
        """End the child process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process, self._connection, self._count = None, None, 0

    def _ensure(self) -> Connection:
        if self._count >= self._limit:
            log.info("PROCESS_REPLACED", extra={"fields": {"after": self._count}})
            self.close()
        if self._connection is None or self._process is None or not self._process.is_alive():
            self.close()
            # Spawned, not forked: CUDA and threads do not survive a fork.
            start = multiprocessing.get_context("spawn")
            ours, theirs = start.Pipe()
            self._process = start.Process(
                target=_serve, args=(theirs, os.getpid()), name="dicomnode-analysis", daemon=True
            )
            self._process.start()
            theirs.close()
            self._connection = ours
        return self._connection

    def _await(
        self,
        connection: Connection,
        progress: Progress,
        keep_going: Callable[[], bool],
        every_seconds: float,
    ) -> object:
        deadline = time.monotonic() + self._timeout
        while True:
            answer = connection.recv() if connection.poll(every_seconds) else None
            if isinstance(answer, _Progress):
                progress(answer.stage, answer.fraction)
            elif answer is not None:
                return answer
            if not keep_going():
                self.close()
                raise Stopped
            if time.monotonic() > deadline:
                self.close()
                raise EngineError("TIMEOUT", f"the analysis took more than {self._timeout:.0f} s")

    def _died(self) -> EngineError:
        process = self._process
        process.join(5)
        code = process.exitcode
        self.close()
        if code == -signal.SIGKILL:
            before, now = self._oom_kills, oom_kills()
            if before is not None and now is not None and now > before:
                return EngineError(
                    "WORKER_OUT_OF_MEMORY",
                    "the analysis process was killed while the kernel killed for lack of memory",
                )
            return EngineError("WORKER_KILLED", "the analysis process was killed by signal 9")
        return EngineError("WORKER_CRASHED", f"the analysis process ended with exit code {code}")


def oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int | None:
    """Return how many processes the kernel has killed for lack of memory since it started.

    `oom_kill` of /proc/vmstat counts those of control groups as well (Linux 4.13). None where it
    cannot be known.
    """
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def give_way() -> None:
    """Compute only when nobody else wants to: reception must not wait for an analysis.

    The idle policy counts for the disk as well. Where it is not to be had, the lowest priority.
    Linux shares processors among sessions first, if they are not in control groups, and looks at
    the policy only within one (sched(7), "The autogroup feature"): so this one leaves its session
    and takes the least share there is.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        os.nice(19)
    with contextlib.suppress(OSError):  # it leads one already
        os.setsid()
    with contextlib.suppress(OSError):  # there are no such groups
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


def _serve(connection: Connection, parent: int) -> None:
    """Answer requests until the dispatcher closes the pipe or dies."""
    from dicomnode import logs
    from dicomnode.pipeline import Analyzer

    give_way()  # first: threads that are started later inherit it
    logs.set_up("analysis")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the dispatcher's to answer
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    analyzer = Analyzer()
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_answer(analyzer, request, connection))


def _answer(analyzer: Any, request: _Request, connection: Connection) -> object:
    def report(stage: str, fraction: float) -> None:
        connection.send(_Progress(stage, fraction))

    try:
        return analyzer(request.paths, request.plan, report)
    except Refusal as refusal:
        return refusal
    except CatalogError as error:
        return Refusal("MODEL_NOT_AVAILABLE", str(error))
    except Exception as error:  # whatever a model raises becomes an outcome of the job
        log.exception("ANALYSIS_FAILED")
        if is_out_of_memory(error):
            return EngineError("OUT_OF_MEMORY", "the analysis ran out of memory")
        return EngineError("ANALYSIS_FAILED", f"{type(error).__name__}: see the log of the worker")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an analysis ended for lack of memory, of this machine or of a device.

    torch has a class for the device's memory; of this machine's it says only in words that it got
    none.
    """
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
