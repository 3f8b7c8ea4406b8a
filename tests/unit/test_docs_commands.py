"""Every command line in the texts is one that the commands' own parser takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from dicomnode import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


def lines() -> dict[str, str]:
    """Return the command lines of all pages, and where each stands."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text()
        codes = re.findall(r"^\| `(dicomnode [^`\n]+)` \|", text, re.MULTILINE)
        codes += re.findall(r"^ {4}(dicomnode .+)$", text, re.MULTILINE)
        for code in codes:
            if re.fullmatch(r"dicomnode [a-z]+( [a-z]+)?", code) or "..." in code or "…" in code:
                continue  # a command's name, and no command line
            found.setdefault(code, str(page.relative_to(ROOT)))
    return found


LINES = lines()


def test_there_are_some() -> None:
    assert len(LINES) > 30


@pytest.mark.parametrize("line", sorted(LINES))
def test_a_command_line_is_taken(line: str) -> None:
    words = shlex.split(re.sub(r"\s+#.*$", "", line))[1:]
    words = ["1" if word == "N" else word for word in words]
    command: Any = typer.main.get_command(cli.app)
    parent = None
    while True:
        try:
            context = command.make_context(command.name, words, parent=parent)
        except Exception as error:  # noqa: BLE001 - whatever the parser says of the line
            pytest.fail(f"{LINES[line]}: {line}: {type(error).__name__}: {error}")
        if not hasattr(command, "commands"):
            return
        name, *words = [*context._protected_args, *context.args]
        assert name in command.commands, f"{LINES[line]}: {line}: no command {name}"
        parent, command = context, command.commands[name]


@pytest.mark.parametrize("line", ["dicomnode status --nonesuch", "dicomnode probe a b"])
def test_a_wrong_line_is_seen(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Says that the test above can fail.
    monkeypatch.setitem(LINES, line, "here")
    with pytest.raises(pytest.fail.Exception, match="here: dicomnode"):
        test_a_command_line_is_taken(line)
