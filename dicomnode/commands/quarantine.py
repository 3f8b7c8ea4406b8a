"""`dicomnode quarantine`: what lies there and why; put back, or discard."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from dicomnode.commands.common import DONE, FAILED, AsJson, ConfigOption, out, say, tell
from dicomnode.settings import load
from dicomnode.shapes import Act, PutBack

if TYPE_CHECKING:
    from dicomnode.ledger import Ledger
    from dicomnode.settings import Settings

app = typer.Typer(
    help="Files that could not be taken as what their sender said they are.", no_args_is_help=True
)
File = Annotated[str, typer.Argument(metavar="NAME", help="As `quarantine list` shows it.")]


def _ledger(settings: Settings) -> Ledger:
    from dicomnode.ledger import Ledger
    from dicomnode.ledger.schema import upgrade

    ledger = Ledger(settings.ledger_url, settings.node.id, audit_room=settings.audit.room)
    upgrade(ledger)
    return ledger


@app.command("list")
def list_(
    config_option: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Files at most, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List what lies in quarantine, the newest first, and why.

    For example: dicomnode quarantine list -c dicomnode.yaml
    """
    from dicomnode.domain.sayings import saying
    from dicomnode.services.quarantine import listing
    from dicomnode.spool import Spool

    spool = Spool(load(config_option).spool_folder)
    spool.create()
    facts = listing(spool, limit)
    if as_json:
        say(facts)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("name", "since", "from", "bytes"):
        table.add_column(column, no_wrap=True)  # a name is what the other commands take
    table.add_column("why")
    for one in facts["files"]:
        why = f"{one['code']}: {saying(one['code']).what} {one['detail']}"
        cells = (one["name"], one["since"][:19], one["calling_ae"], str(one["size"]), why)
        table.add_row(*map(Text, cells))  # what a peer has written is no markup
    out.print(table)
    out.print(f"{facts['count']} files, {facts['bytes']} bytes", highlight=False)


@app.command("release")
def release(name: File, config_option: ConfigOption = None, as_json: AsJson = False) -> None:
    """Take a file in again as if it came now, with the same checks; else it stays.

    For example: dicomnode quarantine release NAME -c dicomnode.yaml
    """
    from dicomnode.services.quarantine import put_back

    settings = load(config_option)
    came = put_back(settings, _ledger(settings), name, getpass.getuser())
    if as_json:
        facts: PutBack = {
            "act": "quarantine release",
            "count": int(came is not None and came.is_gone),
            "code": came.code if came else None,
            "detail": came.detail if came else "",
        }
        say(facts)
        raise typer.Exit(DONE if facts["count"] else FAILED)
    if came is None:
        tell("nothing to do")
        raise typer.Exit(FAILED)
    said = f"{came.code} {came.detail}".strip()
    tell(said if came.is_gone else f"it stays: {said}")
    raise typer.Exit(DONE if came.is_gone else FAILED)


@app.command("discard")
def discard(
    name: File,
    reason: Annotated[str, typer.Option(help="Why; recorded with your name.")],
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete a file for good.

    For example: dicomnode quarantine discard NAME --reason "not ours" -c dicomnode.yaml
    """
    from dicomnode.services.quarantine import discard as throw_away
    from dicomnode.spool import Spool

    settings: Settings = load(config_option)
    folder: Path = settings.spool_folder
    done = throw_away(Spool(folder), _ledger(settings), name, getpass.getuser(), reason)
    if as_json:
        facts: Act = {"act": "quarantine discard", "count": int(done)}
        say(facts)
    else:
        tell("discarded" if done else "nothing to do")
    raise typer.Exit(DONE if done else FAILED)
