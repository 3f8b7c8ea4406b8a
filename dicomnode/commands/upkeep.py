"""The configuration, what is derived from it, and the ledger kept whole."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from dicomnode import __version__, logs
from dicomnode.commands.common import (
    DONE,
    WRONG_CONFIGURATION,
    AsJson,
    Config,
    ConfigOption,
    say,
    settings_of,
    tell,
)
from dicomnode.errors import SettingsError
from dicomnode.settings import find_config, load
from dicomnode.shapes import Backup, Check, Fault, Recovered, Version


def check(
    config: Config = None, config_option: ConfigOption = None, as_json: AsJson = False
) -> None:
    """Validate the configuration; names every fault by file, line, column and key.

    For example: dicomnode check dicomnode.yaml
    """
    from dicomnode.checks import check_models, check_tls

    path = find_config(config or config_option)
    try:
        settings = load(path)
        faults = [*check_tls(settings, path), *check_models(settings, path)]
    except SettingsError as error:
        if not as_json:
            raise
        faults = str(error).splitlines()
    if as_json:
        found = [_fault(line, path) for line in faults]
        facts: Check = {"file": str(path), "good": not faults, "faults": found}
        say(facts)
        raise typer.Exit(WRONG_CONFIGURATION if faults else DONE)
    if faults:
        raise SettingsError("\n".join(faults))
    tell(f"{path}: good")


def _fault(line: str, path: Path) -> Fault:
    """Return a line of `check` in its parts: `file:line:column: key: message`."""
    text = line.removeprefix(f"{path}:")
    found = re.fullmatch(r"(\d+):(\d+): ([\w.()-]+): (.*)", text, re.DOTALL)
    if found is None:
        return {"line": None, "column": None, "key": None, "message": text.strip()}
    where, column, key, message = found.groups()
    return {"line": int(where), "column": int(column), "key": key, "message": message}


def conformance(config: Config = None, config_option: ConfigOption = None) -> None:
    """Print the DICOM Conformance Statement of a node with this configuration, as Markdown.

    For example: dicomnode conformance dicomnode.yaml
    """
    from dicomnode.conformance import statement

    typer.echo(statement(settings_of(config, config_option)), nl=False)


def schema() -> None:
    """Print the configuration's JSON Schema, for editors.

    For example: dicomnode schema
    """
    from dicomnode.settings.schema import text

    sys.stdout.write(text())


def backup(
    file: Annotated[Path, typer.Argument(help="Where the backup is to be; replaced if there.")],
    config_option: ConfigOption = None,
    as_json: AsJson = False,
) -> None:
    """Copy the ledger and the patient key into one file, while the node runs.

    For example: dicomnode backup /backup/node.tar.gz -c dicomnode.yaml
    """
    from dicomnode.backup import write_backup

    size = write_backup(load(config_option), file)
    if as_json:
        facts: Backup = {"file": str(file), "size": size}
        say(facts)
    else:
        tell(f"{file}: {size} bytes; now copy the spool")


def recover(
    config: Config = None,
    config_option: ConfigOption = None,
    backup: Annotated[
        Path | None, typer.Option("--backup", help="Restore ledger and key from it first.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring spool and ledger together after a loss; the node must not run.

    For example: dicomnode recover dicomnode.yaml --backup /backup/node.tar.gz
    """
    from dicomnode.services.restoring import recover_node

    logs.set_up("recover")
    done = []
    for sentence in recover_node(settings_of(config, config_option), backup):
        done.append(sentence)
        if not as_json:
            tell(sentence)
    if as_json:
        facts: Recovered = {"done": done}
        say(facts)


def version(as_json: AsJson = False) -> None:
    """Print the version.

    For example: dicomnode version
    """
    if as_json:
        facts: Version = {"version": __version__}
        say(facts)
    else:
        tell(__version__)


COMMANDS = (check, schema, conformance, backup, recover, version)
