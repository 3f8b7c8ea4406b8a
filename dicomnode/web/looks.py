"""What the pages and the API say, gathered from the ledger in one look each."""

from __future__ import annotations

import shutil
from datetime import datetime
from typing import Any

from dicomnode.domain.glance import Look, Queue, glance
from dicomnode.domain.sayings import saying
from dicomnode.ledger import (
    Transaction,
    audit_sinks,
    destinations,
    figures,
    pages,
    presence,
    strangers,
)
from dicomnode.services import quarantine
from dicomnode.settings import Settings
from dicomnode.web.site import Site

Facts = dict[str, Any]


def disk(site: Site) -> Facts:
    """Return how full the spool's disk is, in bytes, and when the receiver stops taking."""
    usage = shutil.disk_usage(site.spool.root)
    return {
        "total_bytes": usage.total,
        "free_bytes": usage.free,
        "min_free_bytes": site.settings.limits.min_free_bytes,
    }


def all_destinations(tx: Transaction, settings: Settings) -> list[Facts]:
    """Return how each destination fares: those of the configuration, and what waits for others."""
    known = {row["name"]: row for row in destinations.listing(tx)}
    states = figures.deliveries_by(tx)
    found = []
    for name in sorted({*settings.destinations, *known, *states}):
        row = known.get(name) or {
            "name": name, "waiting": 0, "oldest": None, "failures": 0, "failing_since": None,
            "retry_at": None, "reason": None, "detail": "", "seen_at": None, "paused_at": None,
            "paused_by": "",
        }  # fmt: skip
        configured = settings.destinations.get(name)
        found.append(
            {
                **row,
                "peer": configured.peer if configured else None,
                "profile": configured.profile if configured else None,
                "is_configured": configured is not None,
                "states": states.get(name, {}),
                "says": saying(row["reason"]).what,
            }
        )
    return found


def overview(site: Site) -> Facts:
    """Return all that the first page says."""
    settings = site.settings
    with site.ledger.looking() as tx:
        facts: Facts = {
            "now": tx.now.isoformat(),
            "node": {"id": settings.node.id, "ae_title": settings.node.ae_title},
            "roles": [
                {"role": role, "silent_seconds": seconds}
                for role, seconds in sorted(figures.roles(tx).items())
            ],
            "arrivals": figures.arrivals(tx),
            "gpus": presence.gpus(tx),
            "queues": figures.queues(tx),
            "states": figures.states(tx),
            "destinations": all_destinations(tx, settings),
            "attention": told(pages.attention(tx, limit=25)),
            "attention_count": sum(pages.how_much_attention(tx).values()),
            "failures": told(pages.failures(tx, limit=10)),
            "waiting": pages.waiting(tx, limit=10),
            "strangers": strangers.listing(tx, settings.association_rules, 10),
            "audit": audit_sinks.listing(tx),
            "day": figures.day(tx),
        }
    facts["disk"] = disk(site)
    facts["quarantined"] = quarantine.count(site.spool)
    facts["answers"] = [
        {"question": one.question, "level": one.level, "short": one.short, "says": one.says}
        for one in glance(_look(facts))
    ]
    trail = facts["audit"]
    if trail is not None:
        answer = {name: trail[name] for name in ("level", "short", "says")}
        facts["answers"].append({"question": "Audit trail", **answer})
    return facts


def _look(facts: Facts) -> Look:
    queues = {
        row["queue"]: Queue(depth=row["depth"], oldest_seconds=row["oldest_seconds"])
        for row in facts["queues"]
    }
    now = datetime.fromisoformat(facts["now"])
    away = tuple(
        row["name"]
        for row in facts["destinations"]
        if (row["retry_at"] and datetime.fromisoformat(row["retry_at"]) > now)
        or row["failures"] > 1
    )
    return Look(
        silent_seconds={row["role"]: row["silent_seconds"] for row in facts["roles"]},
        free_bytes=facts["disk"]["free_bytes"],
        min_free_bytes=facts["disk"]["min_free_bytes"],
        last_seconds_ago=facts["arrivals"]["seconds_ago"],
        open_associations=facts["arrivals"]["open_associations"],
        running=queues["running_jobs"],
        queued=queues["queued_jobs"],
        deliveries=queues["deliveries"],
        away=away,
        paused=tuple(row["name"] for row in facts["destinations"] if row["paused_at"]),
    )


def told(rows: list[Facts]) -> list[Facts]:
    """Add to rows with a code what it means and what to do."""
    for row in rows:
        code = row.get("code") or row.get("reason")
        means = saying(code)
        row["says"], row["todo"] = means.what, means.todo
        other = row.get("delivery_reason") or row.get("reason")
        because = saying(other if row.get("code") else None)
        row["because"], row["todo"] = because.what, because.todo or row["todo"]
    return rows


def study(site: Site, uid: str) -> Facts | None:
    """Return all that a study's page says, but for what lies in the spool."""
    with site.ledger.looking() as tx:
        facts = pages.study_facts(tx, uid)
    if facts is None:
        return None
    facts["hold_says"] = saying(facts["hold_reason"]).what
    told(facts["events"])
    for job in facts["jobs"]:
        job["says"] = saying(job["reason"]).what
        job["todo"] = saying(job["reason"]).todo
        told(job["deliveries"])
    return facts
