"""What a soak measured, and its tables."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from processes import MemoryWatch, Trend

STEPS = 10
CACHES_MIB = 2.0
"""What a process may still take for caches that have a bound: 2 MB of pages for each connection to
SQLite. In a run ten times as long (`make soak STUDIES=1000`) it is ten times as sharp."""
STAGES = ("closes", "waits", "is analysed", "is delivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much load there is."""

    studies: int
    slices: int
    matrix: int
    """Rows and columns; the field of view stays."""
    backlog: int = 0
    """Studies that come before, too old to be analysed."""
    senders: int = 4
    quiet_seconds: float = 10.0
    """After the last instance; by it alone a study is known to be whole here."""
    hurried: bool = False
    """The analysis does not give way: where others use this machine, it would wait for them."""


@dataclass(slots=True)
class Sent:
    """A study as its sender sees it; times in UTC."""

    uid: str
    digests: dict[str, str]
    """SOP Instance UID -> sha256 of the data set, of what was acknowledged."""
    began: datetime
    ended: datetime
    """When the sender's program had ended, just after the last instance was acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A study whose results have arrived; times in UTC, of the ledger."""

    closed: datetime
    taken_up: datetime
    analysed: datetime
    arrived: datetime
    computed: float
    """Seconds in the analysis itself."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured."""

    size: Size
    sent: dict[str, Sent]
    stored: dict[str, Stored]
    proof: Counter[str]
    memory: MemoryWatch
    seconds: float
    """From the first instance to the last result."""
    warm_since: float
    """Of `time.monotonic`."""

    @cached_property
    def latencies(self) -> list[float]:
        """Seconds from the last instance's acknowledgement to the last result's arrival, sorted."""
        return sorted(
            (self.stored[uid].arrived - one.ended).total_seconds() for uid, one in self.sent.items()
        )

    def quantile(self, fraction: float) -> float:
        """Return a quantile of the latencies, the nearest rank."""
        rank = max(1, int(np.ceil(fraction * len(self.latencies))))
        return self.latencies[rank - 1]

    @cached_property
    def trends(self) -> dict[str, Trend]:
        """MiB over hours by kind of process; only of a run that is long enough."""
        return self.memory.trends(self.warm_since)

    def medians(self) -> dict[str, float]:
        """Return the median seconds of each stage on the way to the archive."""
        steps = [
            (one.ended, kept.closed, kept.taken_up, kept.analysed, kept.arrived)
            for one, kept in ((one, self.stored[uid]) for uid, one in self.sent.items())
        ]
        return {
            name: statistics.median(
                (step[index + 1] - step[index]).total_seconds() for step in steps
            )
            for index, name in enumerate(STAGES)
        }

    def speeds(self) -> str:
        """Return the table of the speeds, as Markdown."""
        instances = sum(len(one.digests) for one in self.sent.values())
        rates = [
            len(one.digests) / max((one.ended - one.began).total_seconds(), 1e-3)
            for one in self.sent.values()
        ]
        steps = ", ".join(f"{name} {value:.1f} s" for name, value in self.medians().items())
        computed = statistics.median(kept.computed for kept in self.stored.values())
        rows = [
            ("studies; slices each, matrix", f"{self.size.studies}; {self.size.slices}, "
             f"{self.size.matrix}x{self.size.matrix}"),
            ("before them, too old to be analysed", f"{self.size.backlog} of {self.size.slices}"),
            ("senders at once", str(self.size.senders)),
            ("quiet time that closes a study", f"{self.size.quiet_seconds:g} s"),
            ("the analysis gives way to others", "no" if self.size.hurried else "yes"),
            ("time", f"{self.seconds / 60:.1f} min"),
            ("instances acknowledged", f"{instances}"),
            ("the same, over the whole run", f"{instances / self.seconds:.1f} /s"),
            ("the same, of one sender while it sends", f"{statistics.median(rates):.0f} /s"),
            ("studies", f"{3600 * len(self.stored) / self.seconds:.0f} /h"),
            ("last slice to stored, p50", f"{self.quantile(0.5):.1f} s"),
            ("last slice to stored, p95", f"{self.quantile(0.95):.1f} s"),
            ("of it, medians", steps),
            ("the analysis alone (median)", f"{computed:.1f} s"),
            ("instances lost, with the older ones",
             str(instances + self.size.backlog * self.size.slices - self.proof["instances"])),
            ("current result sets in the archive", str(self.proof["studies"])),
        ]  # fmt: skip
        return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])

    def verdict(self, line: Trend) -> str:
        """Say whether memory is flat, grows by less than caches may take, or grows."""
        if line.is_flat:
            return "flat"
        grown = line.slope * self.seconds / 3600
        return "fills caches" if grown <= CACHES_MIB else "grows"

    def memories(self) -> str:
        """Return the table of the memory, as Markdown."""
        lines = [
            "| process | RSS | PSS | own, first and last | slope | by chance up to | |",
            "|---|---|---|---|---|---|---|",
        ]
        an_hour = len(self.stored) / self.seconds * 3600
        for kind, line in sorted(self.trends.items()):
            seen = self.memory.memory[kind]
            slope, noise = (1024 * value / an_hour for value in (line.slope, line.noise))
            lines.append(
                f"| {kind} | {statistics.median(one.rss for one in seen):.0f} | "
                f"{statistics.median(one.pss for one in seen):.0f} | "
                f"{line.start:.1f}, {line.end:.1f} | {slope:+.1f} | {noise:.1f} | "
                f"{self.verdict(line)} |"
            )
        return "\n".join(lines)

    def course(self) -> str:
        """Return the table of the own memory over time, as Markdown."""
        shares = " | ".join(f"{100 * (step + 1) // STEPS} %" for step in range(STEPS))
        lines = [f"| MiB, least until | {shares} |", "|---" * (STEPS + 1) + "|"]
        for kind, values in sorted(self.memory.course(STEPS).items()):
            lines.append(f"| {kind} | {' | '.join(f'{value:.1f}' for value in values)} |")
        return "\n".join(lines)
