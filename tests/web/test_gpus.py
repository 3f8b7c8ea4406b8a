"""GPU memory, with NVML's own binding over a library of our own, from the driver to the page.

The library has the driver's name and a few of its functions, and is loaded as that would be. Each
case is a process of its own: a library that is loaded once stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nodes import Node
from peers import wait_until
from prometheus_client.parser import text_string_to_metric_families
from web_kit import Web

from dicomnode.ledger import Ledger, presence

LIBRARY = Path(__file__).parents[1] / "nvml.c"
ASK = """
from dicomnode import logs
from dicomnode.gpus import Gpus
logs.set_up("work")
gpus = Gpus()
print(gpus.read())
print(gpus.read())
"""
H200 = {"index": 0, "name": "Fake H200", "total_bytes": 150 * 10**9, "used_bytes": 30 * 10**9}
L4 = {"index": 1, "name": "Fake L4", "total_bytes": 24 * 10**9, "used_bytes": 0}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("nvml")
    target = str(folder / "libnvidia-ml.so.1")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, str(LIBRARY)], check=True)
    return str(folder)


def ask(**environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.peer("cc")
def test_the_role_work_tells_what_its_driver_says(
    library: str, node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", library)
    running = node("work")

    def told() -> list[dict[str, Any]]:
        with running.ledger.looking() as tx:
            return presence.gpus(tx)

    wait_until(told, 30, "the role has given a sign of life")
    assert told() == [H200, L4]


@pytest.mark.peer("cc")
def test_a_gpu_that_is_lost_is_logged_once(library: str) -> None:
    done = ask(LD_LIBRARY_PATH=library, NVML_SECOND_FAULT="15")
    assert done.stdout == "()\n()\n"
    assert done.stderr.count("GPU_UNREADABLE") == 1


def test_without_a_driver_there_is_none_and_no_complaint() -> None:
    if any(Path("/proc/driver").glob("nvidia")):
        pytest.skip("this machine has NVIDIA's driver")
    done = ask()
    assert done.stdout == "()\n()\n"
    assert "GPU_UNREADABLE" not in done.stderr


def samples(web: Web) -> dict[tuple[str, str], float]:
    text = web.program("vera").get("/metrics").text
    return {
        (sample.labels["gpu"], sample.labels["which"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "dicomnode_gpu_memory_bytes"
    }


def test_page_and_metrics_say_it_as_long_as_it_is_fresh(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    assert samples(web) == {}
    assert "<h2>GPU" not in web.browser("vera").get("/").text
    with ledger.transaction() as tx:
        presence.beat(tx, "work", 1, "waits", [H200, L4])
        presence.beat(tx, "send", 2, "waits")
    assert web.program("vera").get("/api/overview").json()["gpus"] == [H200, L4]
    assert samples(web) == {
        ("0", "total"): 150e9, ("0", "used"): 30e9, ("1", "total"): 24e9, ("1", "used"): 0.0,
    }  # fmt: skip
    text = web.browser("vera").get("/").text
    assert "120.0 GB free" in text
    assert "Fake H200" in text
    clock.forward(60)
    assert samples(web) == {}, "a role that is silent knows nothing of now"
    assert web.program("vera").get("/api/overview").json()["gpus"] == []
