"""GPU memory in the metrics and on the page: with NVML's own binding, over a library of our own.

The library has the driver's name and a few of its functions, and is loaded as that would be. Each
case is a process of its own: a library that is loaded once stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
ASK = """
import json, sys
from pathlib import Path
from web_kit import Web
from dicomnode.ledger import Ledger, nodes
from dicomnode.ledger.schema import upgrade
folder = Path(sys.argv[1])
ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite", "node-1")
upgrade(ledger)
with ledger.transaction() as tx:
    nodes.register_node(tx, "DICOMNODE", "key-1")
web = Web(folder, ledger)
web.add_users()
program = web.program("vera")
answers = {
    "facts": program.get("/api/overview").json()["gpus"],
    "text": web.browser("vera").get("/").text,
    "metrics": [line for line in program.get("/metrics").text.splitlines() if "gpu" in line],
    "torch": "torch" in sys.modules,
}
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(target), str(TESTS / "nvml.c")], check=True)
    return folder


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    def asked(**environment: str) -> Any:
        paths = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, "-c", ASK, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": paths, **environment},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}

    return asked


@pytest.mark.peer("cc")
def test_the_memory_of_each_gpu_is_told(library: Path, ask: Callable[..., Any]) -> None:
    found = ask(LD_LIBRARY_PATH=str(library))
    assert found["facts"] == [
        {"index": 0, "name": "Fake H200", "total_bytes": 150 * 10**9, "used_bytes": 30 * 10**9},
        {"index": 1, "name": "Fake L4", "total_bytes": 24 * 10**9, "used_bytes": 0},
    ]
    samples = dict(line.rsplit(" ", 1) for line in found["metrics"] if line[0] != "#")
    assert {name: float(value) for name, value in samples.items()} == {
        'dicomnode_gpu_memory_bytes{gpu="0",which="total"}': 150e9,
        'dicomnode_gpu_memory_bytes{gpu="0",which="used"}': 30e9,
        'dicomnode_gpu_memory_bytes{gpu="1",which="total"}': 24e9,
        'dicomnode_gpu_memory_bytes{gpu="1",which="used"}': 0.0,
    }
    assert "Fake H200" in found["text"]
    assert "120.0 GB free" in found["text"]
    assert not found["torch"], "the page loads no model"


@pytest.mark.peer("cc")
def test_a_gpu_that_is_lost_is_logged_and_the_page_lives(
    library: Path, ask: Callable[..., Any]
) -> None:
    found = ask(LD_LIBRARY_PATH=str(library), NVML_SECOND_FAULT="15")
    assert found["facts"] == []
    assert not [line for line in found["metrics"] if line[0] != "#"]
    assert found["log"].count("GPU_UNREADABLE") == 1, "once, not with every look"


def test_without_a_driver_there_is_no_sample_and_no_complaint(
    ask: Callable[..., Any], tmp_path: Path
) -> None:
    if any(Path("/proc/driver").glob("nvidia")):
        pytest.skip("this machine has NVIDIA's driver")
    found = ask()
    assert found["facts"] == []
    assert not [line for line in found["metrics"] if line[0] != "#"]
    assert "GPU_UNREADABLE" not in found["log"]
    assert "<h2>GPU" not in found["text"]
