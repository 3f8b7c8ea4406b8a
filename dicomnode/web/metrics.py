"""Metrics for Prometheus: gauges are read from the ledger, counters grow while this process runs.

What ended shortly before a look may be committed shortly after it: each look goes back a while,
and what was counted is remembered for as long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from dicomnode import __version__
from dicomnode.ledger import Transaction, audit_sinks, destinations, figures, pages, presence
from dicomnode.services import quarantine
from dicomnode.web.looks import disk
from dicomnode.web.site import Site

OVERLAP = timedelta(minutes=5)
REMEMBERED = timedelta(days=2)
"""An archive's commitment, which comes later, does not count an object anew."""
BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started: datetime | None = None
        self._looked: datetime | None = None
        self._seen: dict[tuple[str, str, int, int], datetime] = {}
        registry = self._registry = CollectorRegistry()

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"dicomnode_{name}", says, labels, registry=registry)

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"dicomnode_{name}", says, labels, registry=registry)

        self._associations = counter("associations", "Associations that ended.", "outcome")
        self._instances = counter("instances_received", "Instances that ended associations brought")
        self._bytes = counter("received_bytes", "Bytes that ended associations brought.")
        self._steps = Histogram(
            "dicomnode_step_seconds",
            "How long each step took: closing, queue, analysis, delivery, total.",
            ("step",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._states = gauge("rows", "Studies, jobs and fetches by state.", "of", "state")
        self._depth = gauge("queue_depth", "How much waits.", "queue")
        self._age = gauge("queue_oldest_seconds", "For how long the oldest has waited.", "queue")
        self._deliveries = gauge(
            "deliveries", "Objects by destination and state.", "destination", "state"
        )
        self._failures = gauge(
            "destination_failures", "Attempts that failed in a row.", "destination"
        )
        self._paused = gauge("destination_paused", "1: a person has paused it.", "destination")
        self._silent = gauge("role_silent_seconds", "Since its last sign of life.", "role")
        self._attention = gauge("attention", "Events that need a person.", "code")
        self._disk = gauge("disk_bytes", "Of the spool's disk: total, free.", "which")
        self._least = gauge("disk_least_free_bytes", "Below this nothing is taken any more.")
        self._gpu = gauge("gpu_memory_bytes", "Of each GPU: total, used.", "gpu", "which")
        self._quarantined = gauge("quarantine_files", "Files in quarantine.")
        self._audit_waiting = gauge("audit_waiting", "Records that wait for the audit trail.")
        self._audit_age = gauge("audit_oldest_seconds", "For how long the oldest has waited.")
        self._audit_failures = gauge(
            "audit_failures", "Attempts that failed in a row, by place of the audit trail.", "place"
        )
        self._open = gauge("associations_open", "Associations that are open.")
        gauge("info", "Version of the software.", "version").labels(__version__).set(1)

    def text(self, site: Site) -> tuple[bytes, str]:
        """Look at the ledger, and return the metrics with their content type."""
        with self._lock:
            with site.ledger.looking() as tx:
                self._count(tx)
                self._look(tx, site)
            room = disk(site)
            self._disk.labels("total").set(room["total_bytes"])
            self._disk.labels("free").set(room["free_bytes"])
            self._least.set(room["min_free_bytes"])
            self._quarantined.set(quarantine.count(site.spool))
            return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def _count(self, tx: Transaction) -> None:
        """Count what has ended since this process began to look, each once."""
        self._started = self._started or tx.now
        begin = max(self._started, (self._looked or tx.now) - OVERLAP)
        self._looked = tx.now
        for row_id, outcome, instances, size in figures.ended_associations(tx, begin):
            if self._is_new(("association", "", row_id, 0), tx.now):
                self._associations.labels(outcome).inc()
                self._instances.inc(instances)
                self._bytes.inc(size)
        for one in figures.took(tx, begin):
            if self._is_new((one.step, *one.key), tx.now):
                self._steps.labels(one.step).observe(one.seconds)
        gone = tx.now - REMEMBERED
        self._seen = {key: at for key, at in self._seen.items() if at > gone}

    def _is_new(self, key: tuple[str, str, int, int], now: datetime) -> bool:
        is_new = key not in self._seen
        self._seen[key] = now
        return is_new

    def _look(self, tx: Transaction, site: Site) -> None:
        for gauge in (self._states, self._deliveries, self._silent, self._attention, self._depth,
                      self._age, self._failures, self._paused, self._gpu):  # fmt: skip
            gauge.clear()  # what is no more is not said any more
        for of, state, count in _of(figures.states(tx)):
            self._states.labels(of, state).set(count)
        for name, state, count in _of(figures.deliveries_by(tx)):
            self._deliveries.labels(name, state).set(count)
        for queue in figures.queues(tx):
            self._depth.labels(queue["queue"]).set(queue["depth"])
            self._age.labels(queue["queue"]).set(queue["oldest_seconds"] or 0.0)
        known = {row["name"]: row for row in destinations.listing(tx)}
        for name in {*known, *site.settings.destinations}:
            row = known.get(name, {})
            self._failures.labels(name).set(row.get("failures", 0))
            self._paused.labels(name).set(1 if row.get("paused_at") else 0)
        for gpu in presence.gpus(tx):
            self._gpu.labels(gpu["index"], "total").set(gpu["total_bytes"])
            self._gpu.labels(gpu["index"], "used").set(gpu["used_bytes"])
        for role, seconds in figures.roles(tx).items():
            self._silent.labels(role).set(seconds)
        for code, number in pages.how_much_attention(tx).items():
            self._attention.labels(code).set(number)
        trail = audit_sinks.listing(tx) or {"waiting": 0, "oldest_seconds": 0.0, "sinks": []}
        self._audit_waiting.set(trail["waiting"])
        self._audit_age.set(trail["oldest_seconds"])
        self._audit_failures.clear()
        for place in trail["sinks"]:
            self._audit_failures.labels(place["name"]).set(place["failures"])
        self._open.set(figures.arrivals(tx)["open_associations"])

    def names(self) -> set[str]:
        """Return the names of all time series that there may be."""
        found = set()
        for family in self._registry.collect():
            found |= set(_series(family))
        return found


def _series(family: Any) -> Iterator[str]:
    if family.type == "counter":
        yield f"{family.name}_total"
    elif family.type == "histogram":
        yield from (f"{family.name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield family.name


def _of(table: dict[str, dict[str, int]]) -> Iterator[tuple[str, str, int]]:
    for name, states in table.items():
        for state, count in states.items():
            yield name, state, count
