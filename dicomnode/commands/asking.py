"""What peers answer, and what the rules would do with a folder; nothing is stored or sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode import views
from dicomnode.commands import completing
from dicomnode.commands.common import DONE, FAILED, AsJson, ConfigOption, out, say, tell
from dicomnode.domain.outcomes import Done
from dicomnode.errors import SettingsError
from dicomnode.settings import load
from dicomnode.shapes import Echo


def probe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Of a destination.", autocompletion=completing.destinations
        ),
    ],
    as_json: AsJson = False,
    config_option: ConfigOption = None,
) -> None:
    """Ask what a destination takes, and so what it would get; nothing is stored there.

    C-ECHO; which objects it accepts, in which transfer syntaxes; TLS; storage commitment. Ends
    with 1 where it cannot be reached, or where an object of its profile has nothing that it takes.

    For example: dicomnode probe pacs -c dicomnode.yaml
    """
    from dicomnode.probing import probe as ask

    facts = ask(load(config_option), name)
    if as_json:
        say(facts)
    else:
        views.print_probe(out, facts)
    whole = facts["answer"] == "DONE" and all(row["gets"] for row in facts["profile"])
    raise typer.Exit(DONE if whole else FAILED)


def echo(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Of a destination, or of a peer.",
            autocompletion=completing.destinations_and_callable,
        ),
    ],
    config_option: ConfigOption = None,
    query: Annotated[
        bool, typer.Option("--query", help="Ask a peer with `query: true` by C-FIND.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a destination or a peer for C-ECHO, or whether it answers queries; ends with 1 if not.

    For example: dicomnode echo pacs -c dicomnode.yaml
    """
    from dicomnode.echoes import echo_destination, echo_peer, query_peer

    settings = load(config_option)
    is_peer = name in settings.peers and name not in settings.destinations
    ask = query_peer if query else echo_peer if is_peer else echo_destination
    answer = ask(settings, name)
    facts: Echo = {"name": name, "answer": answer.code, "detail": getattr(answer, "detail", "")}
    if as_json:
        say(facts)
    else:
        tell(f"{name}: {facts['answer']} {facts['detail']}".rstrip())
    raise typer.Exit(DONE if isinstance(answer, Done) else FAILED)


def rules(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of a study's DICOM files.", show_default=False)
    ] = None,
    config_option: ConfigOption = None,
    study: Annotated[
        str | None,
        typer.Option(metavar="UID", help="A study that came, or one of its series, instead."),
    ] = None,
    sending_ae: Annotated[
        str | None,
        typer.Option(
            help="Calling AE title that the folder would come from.",
            autocompletion=completing.titles,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which series would be analysed by which model, and why the others not.

    For example: dicomnode rules FOLDER -c dicomnode.yaml
    """
    from dicomnode.ledger import Ledger
    from dicomnode.ledger.schema import upgrade
    from dicomnode.trial import choices_of_folder, choices_of_stored

    if (folder is None) == (study is None):
        raise SettingsError("expected either a folder or --study")
    settings = load(config_option)
    if study is None:
        found = choices_of_folder(folder or Path(), settings, sending_ae)
    else:
        ledger = Ledger(settings.ledger_url, settings.node.id)
        upgrade(ledger)
        with ledger.transaction() as tx:
            stored = choices_of_stored(tx, study, settings)
        if stored is None:
            raise SettingsError(f"no study and no series {study} is known here")
        found = [stored]
    if as_json:
        say(found)
        return
    for one in found:
        out.print(f"Study {one['study_uid']}", highlight=False, markup=False)
        views.print_series(out, one["series"])


COMMANDS = (echo, probe, rules)
