"""docs/start.md, as it is written: its commands, taken from the page, in order, in one shell.

By default in the environment that is here, without the viewer; `make test-start` from a clone of
what is committed, installing everything, with OHIF in a browser. The ports are those of the page:
the shell runs in a network of its own where the system allows that.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import peers
import pydicom
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGE = (ROOT / "docs/start.md").read_text()
WHOLE = os.environ.get("DICOMNODE_START") == "1"
PORTS = (11112, 4243, 8043, 8484, 3000)
OWN_NETWORK = ["unshare", "--map-root-user", "--net"]
CHECK = f"{sys.executable} {TESTS}/start_check.py http://127.0.0.1:8043 http://127.0.0.1:8484"
OHIF_HERE = not peers.missing_peers(["ohif", "chromium"])


def blocks() -> dict[str, list[str]]:
    """Return the page's shell commands by heading."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        found[heading] = re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
    return found


def has_own_network() -> bool:
    """Whether a shell may have a network where all ports are free."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    done = subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False)
    return done.returncode == 0


def is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def clone(folder: Path) -> Path:
    """Clone what is committed; without `make test-start` with the environment that is here."""
    there = folder / "dicomnode"
    subprocess.run(["git", "clone", "--quiet", ROOT, there], check=True)
    if not WHOLE:
        (there / ".venv").symlink_to(Path(sys.prefix))
        for name in ("pyproject.toml", "constraints.txt"):
            os.utime(there / name, (0, 0))  # older than the environment: nothing is installed
        shutil.copy(ROOT / "Makefile", there / "Makefile")
    return there


def run(script: str, folder: Path, seconds: float, *, own_network: bool) -> None:
    """Run commands in one shell; it and all that it started have ended afterwards."""
    name = folder / "script"
    up = "ip link set lo up\n" if own_network else ""
    ending = "trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n"
    name.write_text(f"set -euo pipefail\n{up}{ending}cd {folder}/dicomnode\nset -x\n{script}")
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("DICOMNODE", "PYTEST", "VIRTUAL_ENV", "MAKE", "MFLAGS"))
    }
    with (folder / "output").open("a") as output:
        process = subprocess.Popen(
            [*(OWN_NETWORK if own_network else []), "bash", str(name)],
            stdout=output, stderr=output, env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(60)
            code = -1
    assert code == 0, (folder / "output").read_text()[-6000:]


def check_demo(there: Path, said: str) -> None:
    """`make demo` ended well, and left a picture and what its archive got."""
    assert "equals the label map, voxel for voxel" in said
    assert "last slice to stored" in said
    (made,) = (there / "demo-output").iterdir()
    picture = np.asarray(Image.open(made / "preview.png").convert("RGB")).astype(int)
    coloured = np.ptp(picture[100:, :1100], axis=-1) > 20
    assert coloured.mean() > 0.05, "no overlay in the picture"
    modalities = [pydicom.dcmread(path).Modality for path in (made / "archive").iterdir()]
    assert sorted(modalities) == ["OT", "SEG", "SR"]
    assert "Traceback" not in (made / "node.log").read_text()


@pytest.mark.peer("orthanc", "orthanc-dicomweb", "dcmtk", "curl", "git", "make")
def test_the_page_of_ten_minutes_as_it_is_written(tmp_path: Path) -> None:
    own_network = has_own_network()
    if not own_network and not all(map(is_free, PORTS)):
        pytest.skip(f"a network of one's own is not to be had, and of {PORTS} not all are free")
    parts = blocks()
    assert list(parts) == [
        "One command",
        "Your own node, with Orthanc as the archive",
        "In OHIF",
        "Stop",
        "If nothing comes back",
    ]
    there = clone(tmp_path)
    (first,) = parts.pop("One command")
    run(first, tmp_path, 1800, own_network=not WHOLE and own_network)
    check_demo(there, (tmp_path / "output").read_text())
    viewer = parts.pop("In OHIF")
    shows = WHOLE and OHIF_HERE
    if shows:  # npm needs the network that the shell may not have
        run("make tests/viewers/ohif/package/dist/index.html", tmp_path, 600, own_network=False)
    (stop,) = parts.pop("Stop")
    node = parts.pop("Your own node, with Orthanc as the archive")
    ohif = "http://127.0.0.1:3000" if shows else "''"
    script = "\n".join([*node, *(viewer if shows else []), f"{CHECK} {ohif}", stop])
    run(script, tmp_path, 900, own_network=own_network)
    output = (tmp_path / "output").read_text()
    assert "start.md holds" in output
    assert "Traceback" not in (there / "start/node.log").read_text()
    assert "DELIVERED" in output


def test_debian_has_what_the_page_names() -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("this is no Debian")
    (named,) = re.findall(r"`apt install ([^`]+)`", PAGE)
    continuous = (ROOT / ".ci/run").read_text()
    assert [one for one in named.split() if one not in continuous] == []


def test_the_readme_begins_with_the_same_command() -> None:
    (first,) = blocks()["One command"]
    assert f"    {first.strip()} " in (ROOT / "README.md").read_text()
