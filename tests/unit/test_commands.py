"""The commands teach: each has an example that its own parser takes; what they end with is said."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import commands_page
import pytest
import typer
from shapes import faults_of
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.shapes import SHAPES, Act, Probe
from inference.catalog import load_catalog

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = dict(commands_page.commands())
NO_FACTS = {"run", "receive", "tick", "work", "send", "web", "conformance", "schema", "demo"}


def test_the_page_of_commands_is_made_from_them() -> None:
    written = (ROOT / "docs/commands.md").read_text()
    assert written == commands_page.page(), "python tests/commands_page.py > docs/commands.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_takes(name: str) -> None:
    line = commands_page.example(COMMANDS[name])
    assert line is not None, "its help lacks `For example: dicomnode ...`"
    words = shlex.split(line)[1:]
    assert " ".join(words).startswith(name)
    models = set(load_catalog((), Path("none")).ids())
    if name.startswith("models ") and "model" in {one.name for one in COMMANDS[name].params}:
        assert name == "models import" or words[2] in models, "there is no such model"
    command: Any = typer.main.get_command(cli.app)
    parent = None
    while True:
        context = command.make_context(command.name, words, parent=parent)
        if not hasattr(command, "commands"):
            return
        found, *words = [*context._protected_args, *context.args]
        parent, command = context, command.commands[found]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_tells_facts_tells_them_as_json(name: str) -> None:
    options = {option for one in COMMANDS[name].params for option in one.opts}
    assert ("--json" in options) is (name not in NO_FACTS)
    assert (name in SHAPES) is (name not in NO_FACTS)


def test_the_help_says_how_commands_end() -> None:
    shown = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    words = " ".join(shown.output.split())
    for code, meaning in enumerate(("done", "it failed", "the command line or the", "refused")):
        assert f"{code} {meaning}" in words


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["version"], 0),
        (["release", "1.2", "--reason", "x", "-c", "good.yaml"], 1),
        (["backup", "nowhere/b.tar.gz", "-c", "good.yaml"], 1),
        (["nonesuch"], 2),
        (["status", "--nonesuch"], 2),
        (["check", "bad.yaml"], 2),
        (["check", "bad.yaml", "--json"], 2),
        (["rules", "empty", "-c", "good.yaml"], 3),
        (["rules", "empty", "-c", "good.yaml", "--json"], 3),
    ],
)
def test_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text("storage: {folder: state}\n")
    Path("bad.yaml").write_text("node: 1\n")
    Path("empty").mkdir()
    monkeypatch.setattr(sys, "argv", ["dicomnode", *arguments])
    umask = os.umask(0o077)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        os.umask(umask)
    assert ended.value.code == code


def test_a_shape_that_differs_is_seen() -> None:
    assert list(faults_of({"act": "release", "count": 1}, Act, "")) == []
    for wrong in ({"act": "release"}, {"act": "x", "count": True}, {"act": 1, "count": 1}, [],
                  {"act": "x", "count": 1, "more": 1}):  # fmt: skip
        assert list(faults_of(wrong, Act, ""))
    assert list(faults_of({"objects": [1]}, Probe, ""))


# A person presses Tab in a real shell

CONFIG = """
peers:
  ARCHIVE: {ae_title: ARC_AE, host: 127.0.0.1, port: 104, query: true}
destinations:
  ward: {peer: ARCHIVE}
  pictures-of-ward: {peer: ARCHIVE, profile: pictures}
"""
TABS = {
    "bash": {
        "dicomnode models comm": "dicomnode models commission",
        "dicomnode probe pict": "dicomnode probe pictures-of-ward",
        "dicomnode fetch --study 1.2 --from ARC": "dicomnode fetch --study 1.2 --from ARCHIVE",
        "dicomnode rules . --sending-ae ARC": "dicomnode rules . --sending-ae ARC_AE",
        "dicomnode jobs --state QUAR": "dicomnode jobs --state QUARANTINED",
    },
    "zsh": {
        "dicomnode deliv": "dicomnode deliveries",
        "dicomnode echo --query ARCH": "dicomnode echo --query ARCHIVE",
        "dicomnode models show dem": "dicomnode models show demo",
    },
}
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
PREPARE = {
    "bash": "PS1='> '; bind 'set enable-bracketed-paste off'",
    "zsh": "PS1='> '; unset zle_bracketed_paste; autoload -Uz compinit; compinit -u -D",
}


@pytest.mark.parametrize("shell", ["bash", pytest.param("zsh", marks=pytest.mark.peer("zsh"))])
def test_tab_completes(tmp_path: Path, shell: str) -> None:
    config = tmp_path / "dicomnode.yaml"
    config.write_text(CONFIG)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "DICOMNODE_CONFIG": str(config),
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "COLUMNS": "200",
    }
    script = subprocess.run(
        ["dicomnode"], capture_output=True, text=True, check=False,
        env={**environment, "_DICOMNODE_COMPLETE": f"source_{shell}"},
    ).stdout  # fmt: skip
    (tmp_path / "completion").write_text(script)
    with Terminal(SHELLS[shell], environment) as terminal:
        terminal.type(f"{PREPARE[shell]}; source {tmp_path}/completion; echo rea''dy\n")
        terminal.read_until("ready")
        for typed, completed in TABS[shell].items():
            terminal.type(typed + "\t")
            terminal.read_until(completed)
            terminal.type("\x15")  # the line is given up


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, program: list[str], environment: dict[str, str]) -> None:
        """Start it."""
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            program, stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self._seen = ""

    def __enter__(self) -> Terminal:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Press keys; what was shown before is forgotten."""
        self._seen = ""
        os.write(self._master, text.encode())

    def read_until(self, text: str, seconds: float = 30) -> None:
        """Wait until a text is shown."""
        end = time.monotonic() + seconds
        while text not in self._seen:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(left, 0))
            assert ready, f"{text!r} did not appear: {self._seen!r}"
            self._seen += os.read(self._master, 65536).decode(errors="replace")
