"""docs/commands.md, made from the commands: `python tests/commands_page.py > docs/commands.md`."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

import typer

from dicomnode import cli
from dicomnode.shapes import SHAPES

HEAD = """# Commands

`dicomnode COMMAND --help` says the same on a terminal. This page is made from the program.

Every command takes the configuration from `-c FILE`, else from `DICOMNODE_CONFIG`, else the one in
the package; those that say so take it as an argument, too.

## Exit codes

| code | meaning |
|---|---|
| 0 | It is done. |
| 1 | It failed, or is not so: nothing to do, no answer from the archive, a file that differs. |
| 2 | The command line or the configuration is wrong; nothing was begun. |
| 3 | Refused: the series cannot be analysed honestly, or the archive has or gives no such study. |

Facts go to standard output, errors and the log to standard error.

## Tab

`dicomnode --install-completion` adds to the shell's start-up what completes commands, options, the
names of destinations and peers, AE titles, states and models; `--show-completion` prints it.
It is for bash, zsh, fish and PowerShell; tried with the first two.

## For programs

With `--json` a command writes one JSON value to standard output, in the form that stands with it
below. Keys may be added in a later version; none goes away or changes its meaning. A command that
cannot begin (exit code 2, and 1 with a text on standard error) writes no JSON; `check` does, and
lists the faults. Times are ISO 8601 in UTC.
"""
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command by its whole name, groups left out."""
    group = group or typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def example(command: Any) -> str | None:
    """Return the command line that the help of a command gives as an example."""
    found = re.search(r"For example: (dicomnode .+?)\s*$", command.help or "")
    return found.group(1) if found else None


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    seen: dict[str, Any] = {}
    for name, command in commands():
        parts.append(_command(name, command, seen))
    parts.append("## Objects\n\nWhat the forms above are made of.\n")
    done: set[str] = set()
    while rest := [one for one in seen.values() if one.__name__ not in done]:
        for kind in sorted(rest, key=lambda one: one.__name__):
            done.add(kind.__name__)
            parts.append(_object(kind, seen))
    return "\n".join(parts)


def _command(name: str, command: Any, seen: dict[str, Any]) -> str:
    text = re.sub(r"\s*For example: .*", "", command.help or "", flags=re.DOTALL)
    lines = [f"## dicomnode {name}", "", text, "", f"    {example(command)}", ""]
    options = [_option(one) for one in command.params if not getattr(one, "hidden", False)]
    lines += [*filter(None, options), ""]
    for key in (name, f"{name} --study"):
        if key in SHAPES:
            said = _type(SHAPES[key], seen)
            lines += [
                f"`dicomnode {key} --json` says: {said}.".replace(
                    name + " --study", name + " --study UID"
                ),
                "",
            ]
    return "\n".join(lines)


def _option(parameter: Any) -> str | None:
    if "--help" in parameter.opts:
        return None
    if parameter.param_type_name == "argument":
        named = (parameter.metavar or parameter.name.upper()).strip("[]")
    else:
        named = ", ".join(parameter.opts)
    required = " Required." if parameter.required else ""
    said = (parameter.help or "").rstrip(".")
    return f"- `{named}`: {said}.{required}"


def _type(kind: Any, seen: dict[str, Any]) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind):
        seen.setdefault(kind.__name__, kind)
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if origin is typing.NotRequired:
        return _type(arguments[0], seen) + ", or missing"
    if origin is list:
        return f"list of {_type(arguments[0], seen)}"
    if origin is dict:
        return f"object of {_type(arguments[1], seen)}"
    if origin is typing.Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if arguments:
        return " or ".join(_type(one, seen) for one in arguments)
    return NAMES.get(kind, "any")


def _object(kind: Any, seen: dict[str, Any]) -> str:
    hints = typing.get_type_hints(kind, include_extras=True)
    lines = [
        f"### {kind.__name__}",
        "",
        inspect.getdoc(kind) or "",
        "",
        "| key | value |",
        "|---|---|",
    ]
    lines += [f"| `{key}` | {_type(value, seen)} |" for key, value in hints.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
