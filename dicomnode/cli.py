"""The commands. A role's modules are loaded when that role runs, and no sooner.

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong, 3 refused: the
series cannot be analysed honestly, or the archive does not have the study or does not give it.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from dicomnode import __version__, facts_cli, logs
from dicomnode.domain.plans import ModelOptions
from dicomnode.errors import DicomnodeError, Refusal, SettingsError
from dicomnode.models_cli import app as models_app
from dicomnode.settings import Settings, find_config, load
from dicomnode.users_cli import app as users_app

if TYPE_CHECKING:
    from dicomnode.domain.choosing import Verdict
    from dicomnode.domain.records import SeriesFacts
    from dicomnode.ledger import Transaction

app = typer.Typer(
    name="dicomnode",
    help="A DICOM node that returns every CT series with its anatomy segmented. Research software:"
    " not a medical device, not for diagnosis.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.add_typer(users_app, name="users")
for _command in facts_cli.COMMANDS:
    app.command()(_command)
out = Console()
err = Console(stderr=True)

EXTRAS = {
    "psycopg": "postgres",
    **dict.fromkeys(("itsdangerous", "jinja2", "prometheus_client", "starlette", "uvicorn"), "web"),
}
"""Which extra brings a package; the others come with `work`."""
WRONG_CONFIGURATION = 2
REFUSED = 3

Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="YAML configuration; default: $DICOMNODE_CONFIG, else the one in the package.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The same, as an option.", show_default=False),
]


def _settings(argument: Path | None, option: Path | None) -> Settings:
    settings = load(argument or option)
    logs.set_format(settings.log.format)
    return settings


@app.command()
def run(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the whole node: receive, tick, work, send and web as child processes."""
    from dicomnode.services.supervise import roles_of, supervise

    logs.set_up("run")
    # A wrong configuration ends here, not in five children.
    roles = roles_of(_settings(config, config_option))
    raise typer.Exit(supervise(find_config(config or config_option), roles))


@app.command()
def receive(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the receive role: C-STORE into the spool and the ledger."""
    from dicomnode.services import receive as service

    logs.set_up("receive")
    service.run(_settings(config, config_option), find_config(config or config_option))


@app.command()
def tick(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the tick role: close quiet studies, take back lost jobs."""
    from dicomnode.services import tick as service

    logs.set_up("tick")
    service.run(_settings(config, config_option), find_config(config or config_option))


@app.command()
def work(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the work role: analyse what is queued."""
    from dicomnode.services import work as service

    logs.set_up("work")
    service.run(_settings(config, config_option), find_config(config or config_option))


@app.command()
def send(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the send role: store results at their destinations."""
    from dicomnode.services import send as service

    logs.set_up("send")
    service.run(_settings(config, config_option), find_config(config or config_option))


@app.command()
def web(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the web role: the operator's page, its API and the metrics."""
    from dicomnode.web import serving

    logs.set_up("web")
    path = find_config(config or config_option).absolute()
    serving.run(_settings(path, None), path)


@app.command()
def check(config: Config = None, config_option: ConfigOption = None) -> None:
    """Validate the configuration; names every fault by file, line, column and key."""
    from dicomnode.checks import check_models, check_tls

    path = find_config(config or config_option)
    settings = load(path)
    faults = [*check_tls(settings, path), *check_models(settings, path)]
    if faults:
        raise SettingsError("\n".join(faults))
    out.print(f"{path}: good", highlight=False, soft_wrap=True)


@app.command()
def conformance(config: Config = None, config_option: ConfigOption = None) -> None:
    """Print the DICOM Conformance Statement of a node with this configuration, as Markdown."""
    from dicomnode.conformance import statement

    typer.echo(statement(_settings(config, config_option)), nl=False)


@app.command()
def schema() -> None:
    """Print the configuration's JSON Schema, for editors."""
    from dicomnode.settings.schema import text

    sys.stdout.write(text())


@app.command()
def status(
    config: Config = None,
    config_option: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    study: Annotated[
        str | None, typer.Option(help="The events of one Study Instance UID.", metavar="UID")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows a table at most.")] = 20,
) -> None:
    """Show what came, what went, what is stuck and why."""
    from dicomnode.ledger import Ledger, overview
    from dicomnode.ledger.schema import upgrade
    from dicomnode.views import print_events, print_overview

    settings = _settings(config, config_option)
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
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    elif study is None:
        print_overview(out, facts)
    else:
        print_events(out, facts)


@app.command()
def rules(
    folder: Annotated[Path, typer.Argument(help="Folder of a study's DICOM files.")],
    config_option: ConfigOption = None,
    sending_ae: Annotated[
        str | None, typer.Option(help="Calling AE title that it would come from.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Show which series of a folder would be analysed by which model, and why the others not."""
    from dicomnode.trial import choices_of_folder
    from dicomnode.views import print_series

    found = choices_of_folder(folder, load(config_option), sending_ae)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for study in found:
        out.print(f"Study {study['study_uid']}", highlight=False, markup=False)
        print_series(out, study["series"])


def _act(config: Path | None, act: Callable[[Transaction, str], int], done: str) -> None:
    """Do something to the ledger in the name of the user who is logged in."""
    from dicomnode.ledger import Ledger
    from dicomnode.ledger.schema import upgrade

    settings = load(config)
    ledger = Ledger(settings.ledger_url, settings.node.id)
    upgrade(ledger)
    with ledger.transaction() as tx:
        count = act(tx, getpass.getuser())
    out.print(done if count else "nothing to do", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if count else 1)


@app.command()
def release(
    study: Annotated[str, typer.Argument(metavar="UID", help="Study Instance UID.")],
    reason: Annotated[str, typer.Option(help="Why; recorded with your name.")],
    promises: Annotated[
        bool, typer.Option("--promises", help="Let it be purged although a peer was promised it.")
    ] = False,
    config_option: ConfigOption = None,
) -> None:
    """Release a study that is held, once what it was held for is settled."""
    from dicomnode.ledger import actions
    from dicomnode.ledger import promises as given

    if promises:
        _act(config_option, lambda tx, who: given.release(tx, study, who, reason), "released")
        return
    _act(config_option, lambda tx, who: actions.release_study(tx, study, who, reason), "released")


@app.command()
def requeue(
    job: Annotated[int | None, typer.Option(help="A refused or quarantined job.")] = None,
    delivery: Annotated[int | None, typer.Option(help="A delivery: it is sent again.")] = None,
    config_option: ConfigOption = None,
) -> None:
    """Have a job analysed again, or a delivery sent again; by the numbers that `status` shows."""
    from dicomnode.ledger import actions

    if (job is None) == (delivery is None):
        raise SettingsError("expected either --job or --delivery")
    if job is not None:
        _act(config_option, lambda tx, who: actions.requeue_job(tx, job, who), "queued")
    elif delivery is not None:
        _act(config_option, lambda tx, who: actions.requeue_delivery(tx, delivery, who), "queued")


@app.command()
def analyze(
    series: Annotated[str, typer.Argument(metavar="UID", help="Series Instance UID.")],
    config_option: ConfigOption = None,
) -> None:
    """Analyse a series that another one was chosen over, by the rule that matches it."""
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

    _act(config_option, act, "queued")


@app.command()
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
) -> None:
    """Withdraw results that were delivered, or were to be: archives with `iocm: true` are told."""
    from dicomnode.domain.withdrawal import WITHDRAWN, WITHDRAWN_FOR_QUALITY
    from dicomnode.ledger import withdrawals

    by_note = load(config_option).by_note
    _act(
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
    )


@app.command()
def acknowledge(
    events: Annotated[
        list[int] | None, typer.Argument(help="Numbers that `status` shows; none: all.")
    ] = None,
    ae: Annotated[
        str | None, typer.Option(help="Calling AE title that was refused: not shown again.")
    ] = None,
    config_option: ConfigOption = None,
) -> None:
    """Take events, and requestors that were refused, off the list of what needs attention."""
    from dicomnode.ledger import actions, strangers

    ids = tuple(events or ())

    def act(tx: Transaction, who: str) -> int:
        count = actions.acknowledge(tx, ids, who) if ids or ae is None else 0
        return count + (strangers.acknowledge(tx, ae, who) if ae is not None or not ids else 0)

    _act(config_option, act, "acknowledged")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where the backup is to be; replaced if there.")],
    config_option: ConfigOption = None,
) -> None:
    """Copy the ledger and the patient key into one file, while the node runs."""
    from dicomnode.backup import write_backup

    size = write_backup(load(config_option), file)
    out.print(f"{file}: {size} bytes; now copy the spool", highlight=False, soft_wrap=True)


@app.command()
def recover(
    config: Config = None,
    config_option: ConfigOption = None,
    backup: Annotated[
        Path | None, typer.Option("--backup", help="Restore ledger and key from it first.")
    ] = None,
) -> None:
    """Bring spool and ledger together after a loss; the node must not run."""
    from dicomnode.services.restoring import recover_node

    logs.set_up("recover")
    for sentence in recover_node(_settings(config, config_option), backup):
        out.print(sentence, highlight=False, markup=False, soft_wrap=True)


@app.command()
def segment(
    folder: Annotated[Path, typer.Argument(help="Folder of a CT series' DICOM files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    model: Annotated[str, typer.Option(help="Of the catalog.")] = "demo",
    profile: Annotated[str, typer.Option(help="pacs, modern, pictures or rtstruct.")] = "pacs",
    research: Annotated[
        bool, typer.Option("--research", help="Also NIfTI, statistics.json and a CSV table.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    model_folder: Annotated[
        list[Path] | None, typer.Option(help="A folder with more model cards.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Label for label as the model's own package; slower.")
    ] = False,
    structure: Annotated[
        list[str] | None, typer.Option(help="Only this structure; again for more.")
    ] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Of the tiles, as a part of the patch.", min=0.1, max=1)
    ] = None,
    body_crop: Annotated[bool, typer.Option("--body-crop", help="Leave out the air.")] = False,
    monoenergetic: Annotated[
        bool, typer.Option("--monoenergetic", help="Analyse virtual monoenergetic images too.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of installed weights.")] = None,
    uncommissioned: Annotated[
        bool, typer.Option("--uncommissioned", help="Run a model that is not commissioned.")
    ] = False,
) -> None:
    """Analyse a folder without any network: DICOM in, SEG, preview and SR out."""
    from dicomnode.offline import segment_folder

    logs.set_up("segment")
    segment_folder(
        folder,
        output,
        model=model,
        profile=profile,
        research=research,
        device=device,
        threads=threads,
        model_folders=tuple(model_folder or ()),
        weights_folder=weights.absolute() if weights else load().weights_folder,
        content=load().content,
        quality=load().quality,
        commissioned_only=not uncommissioned,
        options=ModelOptions(
            mode="exact" if exact else "fast",
            step_size=step_size,
            structures=tuple(structure or ()),
            body_crop=body_crop,
        ),
        monoenergetic=monoenergetic,
        console=out,
    )


@app.command()
def echo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a destination; or of a peer.")],
    config_option: ConfigOption = None,
    query: Annotated[
        bool, typer.Option("--query", help="Ask a peer with `query: true` by C-FIND.")
    ] = False,
) -> None:
    """Ask a destination for C-ECHO, or a peer whether it answers queries."""
    from dicomnode.echoes import echo_destination, query_peer

    answer = (query_peer if query else echo_destination)(load(config_option), name)
    out.print(f"{name}: {answer.code} {getattr(answer, 'detail', '')}".rstrip())
    raise typer.Exit(0 if answer.code == "DONE" else 1)


@app.command()
def fetch(
    study: Annotated[
        list[str], typer.Option(metavar="UID", help="Study Instance UID; again for more.")
    ],
    config: Config = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Only this series of the study.")
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option("--from", metavar="PEER", help="Default: whichever has it, of `query: true`."),
    ] = None,
    config_option: ConfigOption = None,
    who: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who wants it; default: who is logged in.")
    ] = None,
) -> None:
    """Fetch studies that were not routed from an archive; they are analysed as if they had been."""
    from dicomnode.fetch_cli import fetch_studies

    logs.set_up("fetch")
    settings = _settings(config, config_option)
    if series is not None and len(study) > 1:
        raise SettingsError("--series goes with one --study")
    raise typer.Exit(fetch_studies(settings, study, series, peer, out, err, who))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for what it makes.")
    ] = Path("demo-output"),
) -> None:
    """Show the whole job on this machine: a synthetic CT in, its results back in an archive."""
    from dicomnode.demo.demonstration import demonstrate

    raise typer.Exit(demonstrate(output, out))


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__, highlight=False)


def main() -> None:
    """Run a command; every error that has a name ends as one clear text and an exit code."""
    os.umask(0o077)  # images of patients are for their user alone, whoever started this
    try:
        app()
    except SettingsError as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(WRONG_CONFIGURATION)
    except ModuleNotFoundError as error:
        name = str(error.name).partition(".")[0]
        said = f"{name} is not installed: pip install 'dicomnode[{EXTRAS.get(name, 'work')}]'"
        err.print(said, style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
    except Refusal as refusal:
        err.print(f"refused: {refusal}", style="red", markup=False, soft_wrap=True)
        sys.exit(REFUSED)
    except DicomnodeError as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(1)
