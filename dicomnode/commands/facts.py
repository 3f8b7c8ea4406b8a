"""Commands that show facts of the ledger: tables, or JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dicomnode import views
from dicomnode.commands import completing
from dicomnode.commands.common import (
    DONE,
    FAILED,
    AsJson,
    Config,
    ConfigOption,
    out,
    say,
    settings_of,
    tell,
)
from dicomnode.errors import SettingsError
from dicomnode.settings import load
from dicomnode.shapes import Health


def _state(life: str) -> Any:
    """Return the option that names states of a life."""
    return typer.Option(
        "--state",
        help="Only in this state; again for more.",
        autocompletion=completing.states(life),
    )


Limit = Annotated[int, typer.Option(min=1, help="Rows at most.")]


def status(
    config: Config = None,
    config_option: ConfigOption = None,
    as_json: AsJson = False,
    study: Annotated[
        str | None, typer.Option(help="The events of one Study Instance UID.", metavar="UID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows a table at most.")] = 20,
) -> None:
    """Show what came, what went, what is stuck and why.

    For example: dicomnode status dicomnode.yaml --study 1.2.3
    """
    from dicomnode.ledger import Ledger, overview
    from dicomnode.ledger.schema import upgrade

    settings = settings_of(config, config_option)
    ledger = Ledger(settings.ledger_url, settings.node.id)
    upgrade(ledger)
    with ledger.transaction() as tx:
        facts = (
            overview.overview(tx, limit=limit, rules=settings.association_rules)
            if study is None
            else {
                "study_uid": study,
                "series": overview.series_of(tx, study),
                "events": overview.events_of(tx, study),
            }
        )
    if as_json:
        say(facts)
    elif study is None:
        views.print_overview(out, facts)
    else:
        views.print_events(out, facts)


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
        say(rows)
        return
    show(out, rows)


def studies(
    state: Annotated[list[str] | None, _state("study")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List studies, newest first: their state, and why one is held.

    For example: dicomnode studies --state HELD
    """
    _show(config, "study", state, limit, as_json, views.print_studies)


def jobs(
    state: Annotated[list[str] | None, _state("job")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List analyses, newest first: how far they are, and why one was refused.

    For example: dicomnode jobs --state REFUSED --state QUARANTINED
    """
    _show(config, "job", state, limit, as_json, views.print_jobs)


def deliveries(
    state: Annotated[list[str] | None, _state("delivery")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
    config: ConfigOption = None,
) -> None:
    """List what goes to archives, newest first: tries, the next one, and why one was refused.

    For example: dicomnode deliveries --state PENDING --json
    """
    _show(config, "delivery", state, limit, as_json, views.print_deliveries)


def health(
    config: Config = None,
    config_option: ConfigOption = None,
    roles: Annotated[
        str,
        typer.Option(help="Those that have to run, with blanks between.", envvar="DICOMNODE_ROLES"),
    ] = "receive tick work send web",
    as_json: AsJson = False,
) -> None:
    """Say whether roles of this node live; for containers and monitors.

    Ends with 1 where one of them gave no sign of life for 30 seconds.

    For example: dicomnode health dicomnode.yaml --roles "receive tick"
    """
    from dicomnode.ledger import Ledger, overview

    settings = settings_of(config, config_option)
    ledger = Ledger(settings.ledger_url, settings.node.id)
    with ledger.transaction() as tx:
        silent = overview.silent_roles(tx, roles.split())
    if as_json:
        facts: Health = {"node_id": settings.node.id, "silent": silent}
        say(facts)
    else:
        tell(f"no sign of life: {' '.join(silent)}" if silent else "all live")
    raise typer.Exit(FAILED if silent else DONE)


COMMANDS = (status, health, studies, jobs, deliveries)
