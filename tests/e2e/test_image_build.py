"""The Dockerfile, built and run by buildah, without a container engine and without a registry.

`make test-image` runs it, as root, with apt's buildah and debootstrap. Below it lies a Debian that
debootstrap makes, under the name of the official Python image: what that one differs in is not seen
here. The variant without torch is built; the roles run in it as its user, beside this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from peers import HOST, Dcmtk, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
BASE = "docker.io/library/python:3.11-slim"
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
ROLES = ("receive", "tick", "send", "web")
USER = 10001

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("DICOMNODE_IMAGE") != "1", reason="make test-image builds the image"
    ),
    pytest.mark.peer("buildah", "debootstrap", "dcmtk"),
]


class Builder:
    """Buildah with images of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is built yet."""
        self.folder = folder
        places = ["--root", str(folder / "store"), "--runroot", str(folder / "run")]
        self._command = ["buildah", "--storage-driver", "vfs", *places]

    def __call__(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=1500, check=False
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def command(self, *arguments: object) -> list[str]:
        """Return its command line."""
        return [*self._command, *map(str, arguments)]

    def make_base(self) -> None:
        """Make what stands in for the official Python image; this machine's certificates too."""
        rootfs = self.folder / "rootfs"
        wanted = ["--variant=minbase", f"--include={PACKAGES}", "bookworm", str(rootfs), MIRROR]
        subprocess.run(["debootstrap", *wanted], check=True, stdout=subprocess.DEVNULL)
        for name in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
            if Path(name).exists():
                shutil.copy(name, rootfs / name[1:])
        made = self("from", "scratch").stdout.strip()
        self("copy", made, rootfs, "/")
        self("commit", "--rm", made, BASE)
        shutil.rmtree(rootfs)

    def build(self, tag: str, **arguments: str) -> None:
        """Build the Dockerfile from a clone of what is committed."""
        clone = self.folder / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        how = ["--pull-never", "--format=docker", "--isolation=chroot"]
        self("bud", *how, *given, "-t", tag, clone)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    assert os.geteuid() == 0, "buildah's chroots need root here"
    made = Builder(tmp_path_factory.mktemp("image"))
    made.make_base()
    made.build("node", EXTRAS="web,postgres", TORCH_INDEX="https://pypi.org/simple")
    yield made
    made("rm", "--all", check=False)
    made("rmi", "--all", "--force", check=False)


class Container:
    """A container of the image: programs in it run as its user."""

    def __init__(self, builder: Builder, folder: Path) -> None:
        """Give it a configuration; the ports are this machine's."""
        self.builder = builder
        self.port = free_port()
        config: dict[str, Any] = {
            "node": {"id": "node-1", "port": self.port},
            "peers": {"MODALITY": {"ae_title": "MODALITY", "host": HOST, "accept": True}},
            "storage": {"folder": "/var/lib/dicomnode"},
            "limits": {"min_free_bytes": 0},
            "web": {"port": free_port()},
        }
        self._config = folder / "dicomnode.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._config.chmod(0o644)
        self.name = builder("from", "--pull-never", "node").stdout.strip()

    def command(self, *words: object) -> list[str]:
        """Return the command line that runs words in it."""
        mount = f"{self._config}:/etc/dicomnode/dicomnode.yaml:ro"
        return self.builder.command("run", "--isolation=chroot", "-v", mount, self.name, *words)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run words in it to their end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def container(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Container:
    return Container(builder, tmp_path_factory.mktemp("config"))


def test_what_the_image_says_of_itself(builder: Builder) -> None:
    said = json.loads(builder("inspect", "--type", "image", "node").stdout)["Docker"]["config"]
    assert said["User"] == f"{USER}:{USER}"
    assert said["Healthcheck"]["Test"] == ["CMD", "dicomnode", "health"]
    assert said["Entrypoint"] == ["dicomnode"]
    assert list(said["Volumes"]) == ["/var/lib/dicomnode"]


def test_it_is_not_root_and_may_write_its_state_alone(container: Container) -> None:
    assert container.run("id", "-u").stdout.strip() == str(USER)
    for folder in ("/opt/dicomnode", "/etc/dicomnode", "/usr/local"):
        assert container.run("touch", f"{folder}/x").returncode != 0, folder
    assert container.run("touch", "/var/lib/dicomnode/x").returncode == 0
    assert container.run("dicomnode", "check").returncode == 0


def test_the_roles_run_in_it_and_the_health_check_sees_them(
    container: Container, dcmtk: Dcmtk
) -> None:
    asked = ("dicomnode", "health", "--roles")
    processes = [
        subprocess.Popen(container.command("dicomnode", role), start_new_session=True)
        for role in ROLES
    ]
    try:
        wait_until(lambda: container.run(*asked, " ".join(ROLES)).returncode == 0, 120, "they live")
        wait_until(lambda: dcmtk.echoscu(container.port).returncode == 0, 30, "it listens")
        without = container.run(*asked, "receive work")
        assert without.stdout.strip() == "no sign of life: work"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
