"""The processes of a node that runs, and the memory of each over time, from the kernel."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from nodes import Node
from peers import is_alive
from scipy import stats

SIGNS = {
    b"dicomnode.services.acceptor": "acceptor",
    b"spawn_main": "analysis",
    **{
        f"dicomnode\0{role}\0".encode(): role
        for role in ("run", "receive", "tick", "work", "send", "web")
    },
}
BLOCKS = 20
"""Of a run. The least of each block counts: what a process has while it works comes and goes, what
it does not give back stays."""
CONFIDENCE = 0.99


def processes(node: Node) -> dict[str, list[int]]:
    """Return the living processes of a node that `run` has started, by what they are."""
    found: dict[str, list[int]] = {}
    pending = [node.supervisor]
    while pending:
        pid = pending.pop()
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                pending += [int(child) for child in listing.read_text().split()]
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            kind = next((name for sign, name in SIGNS.items() if sign in line), None)
            if kind is not None and is_alive(pid):
                found.setdefault(kind, []).append(pid)
    return found


def analyses(pid: int) -> list[int]:
    """Return the analysis processes of a dispatcher (not Python's resource tracker)."""
    listings = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [
        int(child)
        for child in " ".join(listings).split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def hurry(pids: Sequence[int]) -> None:
    """Let processes that give way compute like others do."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*"):
            with suppress(OSError):
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
        with suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text("-10", encoding="ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of a process, or of several, in MiB."""

    rss: float
    pss: float
    """What is shared with others counts in parts: it changes when others come and go."""
    own: float
    """Anonymous memory, of this process alone: what it has asked for. A leak lies here."""


def memory_of(pid: int) -> Memory:
    """Return the memory of a process.

    Raises:
        OSError: there is no such process any more.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return Memory(rss=found["Rss"] / 1024, pss=found["Pss"] / 1024, own=found["Anonymous"] / 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A straight line through values over time, and how far it may be by chance alone."""

    start: float
    """Least of the first block."""
    end: float
    """Least of the last one."""
    slope: float
    """Per unit of time, by least squares through the least of each block."""
    noise: float
    """Half the 99 % confidence interval of the slope, widened by what neighbouring blocks have in
    common (first-order autocorrelation of the residuals)."""

    @property
    def is_flat(self) -> bool:
        """Whether it grows by no more than chance explains."""
        return self.slope <= self.noise


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Fit a line.

    Raises:
        ValueError: fewer than two samples a block.
    """
    if len(times) != len(values) or len(times) < 2 * BLOCKS:
        raise ValueError(f"expected at least {2 * BLOCKS} samples, got {len(times)}, {len(values)}")
    at = np.array([block.mean() for block in np.array_split(np.asarray(times), BLOCKS)])
    level = np.array([np.min(block) for block in np.array_split(np.asarray(values), BLOCKS)])
    if np.ptp(level) == 0:
        return Trend(start=float(level[0]), end=float(level[-1]), slope=0.0, noise=0.0)
    fit = stats.linregress(at, level)
    rest = level - (fit.intercept + fit.slope * at)
    spread = float(rest @ rest)
    alike = float(rest[1:] @ rest[:-1]) / spread if spread > 0 else 0.0
    alike = min(max(alike, 0.0), 0.9)
    widened = np.sqrt((1 + alike) / (1 - alike))
    free = BLOCKS - 2
    bound = float(stats.t.ppf((1 + CONFIDENCE) / 2, free))
    return Trend(
        start=float(level[0]),
        end=float(level[-1]),
        slope=float(fit.slope),
        noise=float(fit.stderr * widened * bound),
    )


def _parts(seen: list[Memory], steps: int) -> list[list[Memory]]:
    edges = [len(seen) * step // steps for step in range(steps + 1)]
    return [seen[start:end] for start, end in pairwise(edges)]


class MemoryWatch:
    """Looks at the memory of every process of a node, again and again, from a thread.

    Processes of one kind (acceptors; an analysis and the one that replaces it) are added up.
    """

    def __init__(self, node: Node, every_seconds: float) -> None:
        self._node = node
        self._every = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory watch")
        self._fault: BaseException | None = None
        self.times: dict[str, list[float]] = {}
        """Kind -> seconds of `time.monotonic`."""
        self.memory: dict[str, list[Memory]] = {}
        """Kind -> what its processes had together at each of these times."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what ended the watching."""
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            while not self._done.wait(self._every):
                self._look()
        except BaseException as error:  # noqa: BLE001 - raised again by `check`
            self._fault = error

    def _look(self) -> None:
        now = time.monotonic()
        for kind, pids in processes(self._node).items():
            found = []
            for pid in pids:
                with suppress(OSError):
                    found.append(memory_of(pid))
            if found:
                whole = Memory(
                    rss=sum(one.rss for one in found),
                    pss=sum(one.pss for one in found),
                    own=sum(one.own for one in found),
                )
                self.times.setdefault(kind, []).append(now)
                self.memory.setdefault(kind, []).append(whole)

    def course(self, steps: int) -> dict[str, list[float]]:
        """Return the least own memory of each kind in each of so many steps of the whole time."""
        return {
            kind: [min(one.own for one in step) for step in _parts(seen, steps)]
            for kind, seen in self.memory.items()
        }

    def trends(self, since: float) -> dict[str, Trend]:
        """Return the trend of each kind's own memory, MiB over hours, from `since` on."""
        found = {}
        for kind, times in self.times.items():
            kept = [number for number, at in enumerate(times) if at >= since]
            hours = [(times[number] - since) / 3600 for number in kept]
            found[kind] = trend(hours, [self.memory[kind][number].own for number in kept])
        return found
