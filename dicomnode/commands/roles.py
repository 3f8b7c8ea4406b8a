"""The whole node, and each role of it alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import typer

from dicomnode import logs
from dicomnode.commands.common import Config, ConfigOption, settings_of
from dicomnode.settings import find_config


def run(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the whole node: receive, tick, work, send and web as child processes.

    For example: dicomnode run dicomnode.yaml
    """
    from dicomnode.services.supervise import roles_of, supervise

    logs.set_up("run")
    # A wrong configuration ends here, not in five children.
    roles = roles_of(settings_of(config, config_option))
    raise typer.Exit(supervise(find_config(config or config_option), roles))


def receive(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the receive role: C-STORE into the spool and the ledger.

    For example: dicomnode receive dicomnode.yaml
    """
    _run("receive", config, config_option)


def tick(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the tick role: close quiet studies, take back lost jobs.

    For example: dicomnode tick dicomnode.yaml
    """
    _run("tick", config, config_option)


def work(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the work role: analyse what is queued.

    For example: dicomnode work dicomnode.yaml
    """
    _run("work", config, config_option)


def send(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the send role: store results at their destinations.

    For example: dicomnode send dicomnode.yaml
    """
    _run("send", config, config_option)


def web(config: Config = None, config_option: ConfigOption = None) -> None:
    """Run the web role: the operator's page, its API and the metrics.

    For example: dicomnode web dicomnode.yaml
    """
    from dicomnode.web import serving

    logs.set_up("web")
    path = find_config(config or config_option).absolute()
    serving.run(settings_of(path, None), path)


def _run(role: str, config: Path | None, config_option: Path | None) -> None:
    # Loaded here: a role loads what it needs and nothing else.
    service = import_module(f"dicomnode.services.{role}")
    logs.set_up(role)
    service.run(settings_of(config, config_option), find_config(config or config_option))


COMMANDS = (run, receive, tick, work, send, web)
