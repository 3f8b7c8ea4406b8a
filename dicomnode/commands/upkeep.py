"""The configuration, what is derived from it, and the ledger kept whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import __version__, logs
from dicomnode.commands.common import Config, ConfigOption, out, settings_of
from dicomnode.errors import SettingsError
from dicomnode.settings import find_config, load


def check(config: Config = None, config_option: ConfigOption = None) -> None:
    """Validate the configuration; names every fault by file, line, column and key."""
    from dicomnode.checks import check_models, check_tls

    path = find_config(config or config_option)
    settings = load(path)
    faults = [*check_tls(settings, path), *check_models(settings, path)]
    if faults:
        raise SettingsError("\n".join(faults))
    out.print(f"{path}: good", highlight=False, soft_wrap=True)


def schema() -> None:
    """Print the configuration's JSON Schema, for editors."""
    from dicomnode.settings.schema import text

    sys.stdout.write(text())


def conformance(config: Config = None, config_option: ConfigOption = None) -> None:
    """Print the DICOM Conformance Statement of a node with this configuration, as Markdown."""
    from dicomnode.conformance import statement

    typer.echo(statement(settings_of(config, config_option)), nl=False)


def backup(
    file: Annotated[Path, typer.Argument(help="Where the backup is to be; replaced if there.")],
    config_option: ConfigOption = None,
) -> None:
    """Copy the ledger and the patient key into one file, while the node runs."""
    from dicomnode.backup import write_backup

    size = write_backup(load(config_option), file)
    out.print(f"{file}: {size} bytes; now copy the spool", highlight=False, soft_wrap=True)


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
    for sentence in recover_node(settings_of(config, config_option), backup):
        out.print(sentence, highlight=False, markup=False, soft_wrap=True)


def version() -> None:
    """Print the version."""
    out.print(__version__, highlight=False)


COMMANDS = (check, schema, conformance, backup, recover, version)
