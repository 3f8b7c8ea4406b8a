"""`pip install .` alone, from a clone of what is committed into an empty environment.

`make test-install` runs it: first without extras, which is a node that receives, keeps and sends;
then with `work` and `web`, which ends with the demonstration. No file of the clone is used then.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    os.environ.get("DICOMNODE_INSTALL") != "1", reason="make test-install installs everything"
)


class Environment:
    """An empty virtual environment, and a folder outside the clone."""

    def __init__(self, folder: Path) -> None:
        """Make both."""
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        self.source = folder / "dicomnode"
        subprocess.run(["git", "clone", "--quiet", ROOT, self.source], check=True)
        self.programs = folder / "environment" / "bin"
        subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)

    def pip(self, *arguments: object) -> None:
        """Run pip in the clone; it may have a cache."""
        done = self.run("pip", *arguments, folder=self.source)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def run(
        self, program: str, *arguments: object, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment."""
        environment = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("DICOMNODE", "PYTHON", "VIRTUAL_ENV"))
        }
        return subprocess.run(
            [self.programs / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
            cwd=folder or self.folder,
            env={**environment, "COLUMNS": "200"},
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("install"))


def test_without_extras_it_is_a_node_without_a_model(environment: Environment) -> None:
    environment.pip("install", "--quiet", "-c", "constraints.txt", ".")
    listed = environment.run("pip", "list", "--format", "json")
    installed = {row["name"].lower() for row in json.loads(listed.stdout)}
    assert not {"torch", "highdicom", "starlette"} & installed
    assert environment.run("dicomnode", "version").stdout.strip()
    for command in ("check", "status", "schema", "conformance", "studies", "echo --help"):
        done = environment.run("dicomnode", *command.split())
        assert done.returncode == 0, (command, done.stderr)
    listed = environment.run("dicomnode", "models", "list", "--json")
    assert "demo" in {card["id"] for card in json.loads(listed.stdout)}
    missing = environment.run("dicomnode", "segment", ".", "-o", "out")
    assert missing.returncode == 1
    assert missing.stderr.strip().endswith("is not installed: pip install 'dicomnode[work]'")


def test_the_wheel_holds_everything(environment: Environment) -> None:
    environment.pip("wheel", "--quiet", "--no-deps", "--wheel-dir", "../wheel", ".")
    (wheel,) = (environment.source.parent / "wheel").glob("dicomnode-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "dicomnode", "inference"],
        cwd=environment.source, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = set(tracked.stdout.splitlines())
    assert wanted - names == set()
    for kind in (".html", ".css", ".js", ".csv", ".yaml", "py.typed"):
        assert any(name.endswith(kind) for name in names), kind
    others = {name for name in names - wanted if ".dist-info/" not in name}
    assert others == set(), "what is not the program's own"


def test_wheels_are_enough_without_a_network(environment: Environment, tmp_path: Path) -> None:
    # As in docs/install.md, but for the extra with torch, whose wheels are of a GB.
    environment.pip(
        "wheel", "--quiet", "-c", "constraints.txt", "-w", "../wheels", ".[web,postgres]"
    )
    wheels = environment.source.parent / "wheels"
    shutil.copy(environment.source / "constraints.txt", wheels)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "there"], check=True)
    script = (
        f"{tmp_path}/there/bin/pip install --quiet --no-index --find-links {wheels}"
        f" -c {wheels}/constraints.txt 'dicomnode[web,postgres]'"
        f" && {tmp_path}/there/bin/dicomnode check"
    )
    without_network = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*without_network, "true"], check=False).returncode != 0:
        without_network = []
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    done = subprocess.run(
        [*without_network, "bash", "-c", script],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**environ, "PIP_CONFIG_FILE": os.devnull},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_with_extras_it_does_the_whole_job(environment: Environment) -> None:
    environment.pip("install", "--quiet", "-c", "constraints.txt", ".[work,web]")
    done = environment.run("dicomnode", "demo", "-o", "out")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "equals the label map, voxel for voxel" in done.stdout
    where = environment.run("python", "-c", "import dicomnode; print(dicomnode.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(environment.programs.parent)
    assert environment.run("pip", "check").returncode == 0
