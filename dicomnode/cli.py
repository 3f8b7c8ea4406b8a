"""The program: its commands put together, and every error ended as a text and an exit code.

Exit codes: 0 done, 1 it failed, 2 the command line or the configuration is wrong, 3 refused: the
series cannot be analysed honestly, or the archive does not have the study or does not give it.
"""

from __future__ import annotations

import os
import sys

import typer

from dicomnode.commands import (
    acts,
    asking,
    commission,
    facts,
    images,
    models,
    quarantine,
    roles,
    upkeep,
    users,
)
from dicomnode.commands.common import FAILED, REFUSED, WRONG_CONFIGURATION, err
from dicomnode.errors import DicomnodeError, Refusal, SettingsError

app = typer.Typer(
    name="dicomnode",
    help="A DICOM node that returns every CT series with its anatomy segmented. Research software:"
    " not a medical device, not for diagnosis.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 it failed; 2 the command line or the configuration is wrong; 3"
    " refused: the series cannot be analysed honestly, or the archive does not have the study or"
    " does not give it. Facts come as JSON with --json. Errors go to standard error.",
)
PANELS = {
    "Run": roles.COMMANDS,
    "Look": (*facts.COMMANDS, *asking.COMMANDS),
    "Act": acts.COMMANDS,
    "Images": images.COMMANDS,
    "Upkeep": upkeep.COMMANDS,
}
"""The commands as the help groups them."""
for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
models.app.command()(commission.commission)
app.add_typer(models.app, name="models", rich_help_panel="Upkeep")
app.add_typer(quarantine.app, name="quarantine", rich_help_panel="Act")
app.add_typer(users.app, name="users", rich_help_panel="Upkeep")

EXTRAS = {
    "psycopg": "postgres",
    **dict.fromkeys(("itsdangerous", "jinja2", "prometheus_client", "starlette", "uvicorn"), "web"),
}
"""Which extra brings a package; the others come with `work`."""


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
        sys.exit(FAILED)
    except Refusal as refusal:
        err.print(f"refused: {refusal}", style="red", markup=False, soft_wrap=True)
        sys.exit(REFUSED)
    except DicomnodeError as error:
        err.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(FAILED)
