"""What peers answer, and what the rules would do with a folder; nothing is stored or sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dicomnode import views
from dicomnode.commands.common import AsJson, ConfigOption, out, say
from dicomnode.settings import load


def probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a destination.")],
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
    raise typer.Exit(0 if whole else 1)


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

    found = choices_of_folder(folder, load(config_option), sending_ae)
    if as_json:
        say(found)
        return
    for study in found:
        out.print(f"Study {study['study_uid']}", highlight=False, markup=False)
        views.print_series(out, study["series"])


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


COMMANDS = (echo, probe, rules)
