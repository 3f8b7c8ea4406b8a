"""What a person does to studies, analyses, deliveries and events: recorded by name, safe twice."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.commands.common import DONE, FAILED, AsJson, ConfigOption, say, tell
from dicomnode.errors import SettingsError
from dicomnode.settings import load
from dicomnode.shapes import Act

if TYPE_CHECKING:
    from dicomnode.domain.choosing import Verdict
    from dicomnode.domain.records import SeriesFacts
    from dicomnode.ledger import Transaction


def _act(
    act: str,
    config: Path | None,
    do: Callable[[Transaction, str], int],
    done: str,
    *,
    as_json: bool,
) -> None:
    """Do something to the ledger in the name of the user who is logged in."""
    from dicomnode.ledger import Ledger
    from dicomnode.ledger.schema import upgrade

    settings = load(config)
    ledger = Ledger(settings.ledger_url, settings.node.id, audit_room=settings.audit.room)
    upgrade(ledger)
    with ledger.transaction() as tx:
        count = int(do(tx, getpass.getuser()))
    if as_json:
        facts: Act = {"act": act, "count": count}
        say(facts)
    else:
        tell(done if count else "nothing to do")
    raise typer.Exit(DONE if count else FAILED)


def release(
    study: Annotated[str, typer.Argument(metavar="UID", help="Study Instance UID.")],
    reason: Annotated[str, typer.Option(help="Why; recorded with your name.")],
    promises: Annotated[
        bool, typer.Option("--promises", help="Let it be purged although a peer was promised it.")
    ] = False,
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Release a study that is held, once what it was held for is settled.

    For example: dicomnode release 1.2.3 --reason "the PACS has the right patient"
    """
    from dicomnode.ledger import actions
    from dicomnode.ledger import promises as given

    if promises:
        _act(
            "release",
            config_option,
            lambda tx, who: given.release(tx, study, who, reason),
            "released",
            as_json=as_json,
        )
        return
    _act(
        "release",
        config_option,
        lambda tx, who: actions.release_study(tx, study, who, reason),
        "released",
        as_json=as_json,
    )


def requeue(
    job: Annotated[int | None, typer.Option(help="A refused or quarantined job.")] = None,
    delivery: Annotated[int | None, typer.Option(help="A delivery: it is sent again.")] = None,
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Have a job analysed again, or a delivery sent again; by the numbers that `status` shows.

    For example: dicomnode requeue --job 12
    """
    from dicomnode.ledger import actions

    if (job is None) == (delivery is None):
        raise SettingsError("expected either --job or --delivery")

    def do(tx: Transaction, who: str) -> int:
        if job is not None:
            return actions.requeue_job(tx, job, who)
        return 0 if delivery is None else actions.requeue_delivery(tx, delivery, who)

    _act("requeue", config_option, do, "queued", as_json=as_json)


def analyze(
    series: Annotated[str, typer.Argument(metavar="UID", help="Series Instance UID.")],
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Analyse a series that another one was chosen over, by the rule that matches it.

    For example: dicomnode analyze 1.2.3.4
    """
    from dicomnode.domain.choosing import choose_alone
    from dicomnode.ledger.choosing import analyze_by_hand

    settings = load(config_option)

    def act(tx: Transaction, who: str) -> int:
        def decide(facts: SeriesFacts) -> Verdict:
            return choose_alone(settings.rules, settings.choosing, facts)

        verdict = analyze_by_hand(tx, series, decide, who)
        if verdict is not None and not verdict.is_chosen:
            raise SettingsError(f"it cannot be analysed: {verdict.code}: {verdict.why}")
        return int(verdict is not None)

    _act("analyze", config_option, act, "queued", as_json=as_json)


def withdraw(
    study: Annotated[str, typer.Argument(metavar="UID", help="Study Instance UID.")],
    reason: Annotated[str, typer.Option(help="Why; recorded with your name.")],
    job: Annotated[int | None, typer.Option(help="Only the results of this job.")] = None,
    quality: Annotated[
        bool,
        typer.Option(
            "--quality", help="They are poor, not dangerous: archives may still show them."
        ),
    ] = False,
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Withdraw results that were delivered, or were to be: archives with `iocm: true` are told.

    For example: dicomnode withdraw 1.2.3 --reason "wrong side marked"
    """
    from dicomnode.domain.withdrawal import WITHDRAWN, WITHDRAWN_FOR_QUALITY
    from dicomnode.ledger import withdrawals

    by_note = load(config_option).by_note
    _act(
        "withdraw",
        config_option,
        lambda tx, who: withdrawals.withdraw(
            tx,
            study,
            job_id=job,
            who=who,
            why=reason,
            reason=WITHDRAWN_FOR_QUALITY if quality else WITHDRAWN,
            by_note=by_note,
        ),
        "withdrawn",
        as_json=as_json,
    )


def acknowledge(
    events: Annotated[
        list[int] | None, typer.Argument(help="Numbers that `status` shows; none: all.")
    ] = None,
    ae: Annotated[
        str | None, typer.Option(help="Calling AE title that was refused: not shown again.")
    ] = None,
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Take events, and requestors that were refused, off the list of what needs attention.

    For example: dicomnode acknowledge 7 8
    """
    from dicomnode.ledger import actions, strangers

    ids = tuple(events or ())

    def act(tx: Transaction, who: str) -> int:
        count = actions.acknowledge(tx, ids, who) if ids or ae is None else 0
        return count + (strangers.acknowledge(tx, ae, who) if ae is not None or not ids else 0)

    _act("acknowledge", config_option, act, "acknowledged", as_json=as_json)


COMMANDS = (release, requeue, analyze, withdraw, acknowledge)
