"""Commands that show facts of the ledger, and what destinations take: tables, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dicomnode import views
from dicomnode.errors import SettingsError
from dicomnode.settings import load

out = Console()

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
States = Annotated[
    list[str] | None, typer.Option("--state", help="Only in this state; again for more.")
]
Limit = Annotated[int, typer.Option(min=1, help="Rows at most.")]


def _show(
    config: Path | None,
    life: str,
    states: list[str] | None,
    limit: int,
    as_json: bool,
    show: Callable[[Console, list[Any]], None],
) -> None:
    from dicomnode.domain.lifecycle import LIVES
    from dicomnode.ledger import Ledger, overview
    from dicomnode.ledger.schema import upgrade

    known = {state for step in LIVES[life].values() for state in (*step.sources, step.target)}
    wanted = [state.upper() for state in states or ()]
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise SettingsError(f"--state {unknown[0]}: expected one of {', '.join(sorted(known))}")
    settings = load(config)
    ledger = Ledger(settings.ledger_url, settings.node.id)
    upgrade(ledger)
    with ledger.transaction() as tx:
        rows = overview.listing(tx, life, states=wanted, limit=limit)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    show(out, rows)


def studies(
    state: States = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List studies, newest first: their state, and why one is held.

    For example: dicomnode studies --state HELD
    """
    _show(config, "study", state, limit, as_json, views.print_studies)


def jobs(
    state: States = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List analyses, newest first: how far they are, and why one was refused.

    For example: dicomnode jobs --state REFUSED --state QUARANTINED
    """
    _show(config, "job", state, limit, as_json, views.print_jobs)


def deliveries(
    state: States = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List what goes to archives, newest first: tries, the next one, and why one was refused.

    For example: dicomnode deliveries --state PENDING --json
    """
    _show(config, "delivery", state, limit, as_json, views.print_deliveries)


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a destination.")],
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """Ask what a destination takes, and so what it would get; nothing is stored there.

    C-ECHO; which objects it accepts, in which transfer syntaxes; TLS; storage commitment. Ends
    with 1 where it cannot be reached, or where an object of its profile has nothing that it takes.

    For example: dicomnode probe pacs -c dicomnode.yaml
    """
    from dicomnode.probing import probe as ask

    facts = ask(load(config), name)
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        views.print_probe(out, facts)
    whole = facts["answer"] == "DONE" and all(row["gets"] for row in facts["profile"])
    raise typer.Exit(0 if whole else 1)


COMMANDS = (studies, jobs, deliveries, probe)
