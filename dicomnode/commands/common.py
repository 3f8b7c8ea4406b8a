"""What the commands share: how a configuration is named, where they write, how they end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from dicomnode import logs
from dicomnode.settings import Settings, load

DONE = 0
FAILED = 1
WRONG_CONFIGURATION = 2
"""Of the command line or the configuration; Click's own code for the former."""
REFUSED = 3

out = Console()
err = Console(stderr=True)

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
    typer.Option("--config", "-c", help="The configuration, as an option.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def settings_of(argument: Path | None, option: Path | None) -> Settings:
    """Read the configuration, and log as it says."""
    settings = load(argument or option)
    logs.set_format(settings.log.format)
    return settings


def tell(text: str) -> None:
    """Write a line for people to standard output, as it is."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def say(facts: object) -> None:
    """Write facts as JSON to standard output."""
    sys.stdout.write(json.dumps(facts, indent=2) + "\n")
