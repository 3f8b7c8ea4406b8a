"""The tables of `status` on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Facts = Mapping[str, Any]


def print_overview(console: Console, facts: Facts) -> None:
    """Print what came, what went, what is stuck and why."""
    _attention(console, facts["attention"])
    _strangers(console, facts["strangers"])
    _audit(console, facts["audit"])
    _print(
        console,
        "Roles",
        facts["roles"],
        {
            "role": lambda r: r["role"],
            "node": lambda r: r["node_id"],
            "doing": lambda r: "SILENT" if r["silent"] else r["doing"],
            "last sign": lambda r: _time(r["seen_at"]),
        },
    )
    print_studies(console, facts["studies"])
    _print(
        console,
        "Series",
        facts["series"],
        {
            "Series Instance UID": lambda r: r["series_uid"],
            "modality": lambda r: r["modality"],
            "instances": lambda r: str(r["instances"]),
            "generation": lambda r: str(r["generation"]),
            "model": lambda r: r["chosen_model"] or "-",
            "choice": lambda r: r["choice_code"] or "",
            "why": lambda r: r["choice"],
        },
    )
    print_jobs(console, facts["jobs"])
    if facts["fetches"]:
        _print(
            console,
            "Fetches",
            facts["fetches"],
            {
                "Study Instance UID": lambda r: r["study_uid"],
                "series": lambda r: r["series_uid"] or "all",
                "from": lambda r: r["peer"] or "-",
                "by": lambda r: r["method"] or "-",
                "for": lambda r: r["requested_by"],
                "state": lambda r: "SILENT" if r["silent"] else r["state"],
                "came": lambda r: _came(r),
                "reason": lambda r: ": ".join(filter(None, (r["reason"], r["detail"]))),
                "asked": lambda r: _time(r["requested_at"]),
            },
        )
    if facts["destinations"]:
        _print(
            console,
            "Destinations",
            facts["destinations"],
            {
                "destination": lambda r: r["name"],
                "waiting": lambda r: str(r["waiting"]),
                "since": lambda r: _time(r["oldest"]),
                "away since": lambda r: _time(r["failing_since"]) if r["retry_at"] else "",
                "next call": lambda r: _time(r["retry_at"]),
                "reason": lambda r: ": ".join(filter(None, (r["reason"], r["detail"]))),
                "last success": lambda r: _time(r["seen_at"]),
            },
        )
    print_deliveries(console, facts["deliveries"])


def print_studies(console: Console, rows: Sequence[Facts]) -> None:
    """Print studies: state, how much came, when they close."""
    _print(
        console,
        "Studies",
        rows,
        {
            "Study Instance UID": lambda r: r["study_uid"],
            "state": lambda r: " ".join(filter(None, (r["state"], r["hold_reason"]))),
            "instances": lambda r: str(r["instances"]),
            "last instance": lambda r: _time(r["last_at"]),
            "closes": lambda r: _time(r["due_at"]) or r["closed_by"] or "",
        },
    )


def print_jobs(console: Console, rows: Sequence[Facts]) -> None:
    """Print analyses: how far they are, and what came of them."""
    _print(
        console,
        "Jobs",
        rows,
        {
            "job": lambda r: str(r["id"]),
            "model": lambda r: r["model_id"],
            "state": lambda r: r["state"],
            "stage": lambda r: _stage(r),
            "tries": lambda r: str(r["attempt"]),
            "reason": lambda r: ": ".join(filter(None, (r["reason"], r["detail"]))),
            "findings": _codes,
            "changed": lambda r: _time(r["updated_at"]),
        },
    )


def print_deliveries(console: Console, rows: Sequence[Facts]) -> None:
    """Print what goes to destinations: state, tries, why not."""
    _print(
        console,
        "Deliveries",
        rows,
        {
            "delivery": lambda r: str(r["id"]),
            "job": lambda r: str(r["job_id"]),
            "object": _delivered_object,
            "destination": lambda r: r["destination"],
            "state": lambda r: r["state"],
            "tries": lambda r: str(r["attempt"]),
            "reason": _delivery_reason,
            "changed": lambda r: _time(r["updated_at"]),
            "next try": lambda r: _time(r["due_at"]) if r["state"] == "PENDING" else "",
        },
    )


def print_probe(console: Console, facts: Facts) -> None:
    """Print what a destination takes, and what it would get of its profile."""
    said = f"{facts['destination']}: {facts['called_ae']} at {facts['address']}: {facts['answer']}"
    _said(console, f"{said} {facts['detail']}".rstrip())
    if "objects" not in facts:
        return
    _said(console, f"TLS: {facts['tls'] or 'no'}")
    _said(console, f"C-ECHO: {facts['echo']}")
    _said(console, f"storage commitment: {'offered' if facts['commitment'] else 'not offered'}")
    _print(
        console,
        "Objects",
        facts["objects"],
        {
            "object": lambda r: r["kind"],
            "SOP Class": lambda r: r["sop_class"],
            "accepted in": lambda r: ", ".join(r["accepts"]) or "not at all",
            "would be sent in": lambda r: r["sent_in"] or "-",
        },
    )
    _print(
        console,
        "What it would get",
        facts["profile"],
        {
            "of its profile": lambda r: r["wanted"],
            "object": lambda r: r["gets"] or "nothing",
            "SOP Class": lambda r: r["sop_class"] or "-",
            "refers to": lambda r: ", ".join(r["refers_to"]),
        },
    )


def _said(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _delivered_object(row: Facts) -> str:
    wanted = row["in_place_of"]
    return str(row["kind"].upper() + (f" in place of {wanted.upper()}" if wanted else ""))


def _codes(row: Facts) -> str:
    """Return the codes of a job's findings, mere infos left out; those that hold it are marked."""
    found = [one for one in row["coded"] or () if one["severity"] != "info" or one["held"]]
    return ", ".join(f"{one['code']} (held)" if one["held"] else one["code"] for one in found)


def _delivery_reason(row: Facts) -> str:
    done = "withdrawn" if row["withdrawn_by"] else "to be withdrawn"
    withdraw = row["withdraw_reason"] and f"{done} ({row['withdraw_reason']})"
    return ": ".join(filter(None, (withdraw, row["reason"], row["detail"])))


def print_events(console: Console, facts: Facts) -> None:
    """Print the events of one study, oldest first."""
    if not facts["events"]:
        console.print(
            f"nothing is known of study {facts['study_uid']}", highlight=False, markup=False
        )
        return
    print_series(console, facts["series"])
    _print(
        console,
        f"Study {facts['study_uid']}",
        facts["events"],
        {
            "time": lambda r: _time(r["at"]),
            "level": lambda r: r["level"],
            "event": lambda r: r["code"],
            "job": lambda r: str(r["job_id"] or ""),
            "detail": lambda r: r["detail"],
        },
    )


def print_series(console: Console, rows: Sequence[Facts]) -> None:
    """Print the series of one study, what was decided on each, and why."""
    _print(
        console,
        "Series",
        rows,
        {
            "no": lambda r: "" if r["series_number"] is None else str(r["series_number"]),
            "description": lambda r: r["description"],
            "images": _images,
            "model": lambda r: r["chosen_model"] or "-",
            "choice": lambda r: r["choice_code"] or "not yet",
            "why": lambda r: r["choice"],
        },
    )


def _images(row: Facts) -> str:
    """Say in a few words what a series is of."""
    found = row["summary"] or {}
    parts = [f"{row['instances']} {row['modality']}"]
    parts += [found[name] for name in ("orientation", "kernel") if found.get(name)]
    parts += [f"{found['thickness_mm']:g} mm"] if found.get("thickness_mm") else []
    if found.get("monoenergetic"):
        parts.append("monoenergetic" if found["kev"] is None else f"{found['kev']:g} keV")
    return ", ".join(parts)


def _attention(console: Console, events: Sequence[Facts]) -> None:
    if not events:
        console.print("Nothing needs attention.", style="green")
        return
    console.print(f"{len(events)} things need attention:", style="bold red")
    for event in events:
        subject = event["study_uid"] or ""
        number, code = event["id"], event["code"]
        console.print(
            f"  {number}  {_time(event['at'])}  {code}  {event['detail']}  {subject}".rstrip(),
            style="red",
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=True,
        )


def _audit(console: Console, facts: Facts | None) -> None:
    if facts is not None:
        style = "bold red" if facts["level"] == "bad" else "dim"
        text = f"Audit trail: {facts['short'].lower()}. {facts['says']}"
        console.print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _strangers(console: Console, requestors: Sequence[Facts]) -> None:
    if not requestors:
        return
    console.print(f"{len(requestors)} requestors were turned away:", style="bold yellow")
    for row in requestors:
        who = f"{row['calling_ae'] or '(no title)'} calling {row['called_ae'] or '(no title)'}"
        _line(
            console,
            f"  {row['count']} times, last {_time(row['last_at'])}  {who} from {row['address']}:"
            f" {row['code']}, {row['why']}",
        )
        for line in row["remedy"].splitlines():
            _line(console, f"      {line}")


def _line(console: Console, text: str) -> None:
    """Print what a peer has written as it is: no markup, and in one line to copy."""
    console.print(text, style="yellow", highlight=False, markup=False, emoji=False, soft_wrap=True)


def _print(console: Console, title: str, rows: Sequence[Facts], columns: Mapping[str, Any]) -> None:
    if not rows:
        console.print(f"{title}: none", style="dim")
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As Text: what a peer has written is no markup.
        table.add_row(*(Text(column(row)) for column in columns.values()))
    console.print(table)


def _time(text: str | None) -> str:
    return "" if not text else text[:19].replace("T", " ") + " UTC"


def _came(row: Facts) -> str:
    came = row["completed"] + row["warning"]
    of = "" if row["expected"] is None else f" of {row['expected']}"
    failed = f", {row['failed']} failed" if row["failed"] else ""
    return f"{came}{of}{failed}"


def _stage(row: Facts) -> str:
    if row["state"] != "LEASED" or row["progress"] is None:
        return ""
    return f"{row['stage']} {row['progress']:.0%}"
