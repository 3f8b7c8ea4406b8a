"""Studies from four senders at once for a while; `make soak` takes a hundred of a hundred."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest
from nodes import Node
from peers import Orthanc
from soak import add_reader, overrides, soak
from soak_report import Size

pytestmark = pytest.mark.peer("orthanc", "dcmtk")

STUDIES = int(os.environ.get("DICOMNODE_STUDIES", "4"))
SLICES = int(os.environ.get("DICOMNODE_SLICES", "20"))
MATRIX = int(os.environ.get("DICOMNODE_MATRIX", "64"))
LONG = 50
"""Studies from which on the memory of each process is judged."""
BACKLOG = 300 if STUDIES >= LONG else 2
"""Studies that come before, as many as fill what the acceptors keep of headers."""
HURRIED = STUDIES < LONG or bool(os.environ.get("DICOMNODE_HURRIED"))
"""The short form asks what arrives and not how fast."""


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@pytest.mark.timeout(120 + 60 * STUDIES)
def test_every_study_is_stored_once_nothing_is_lost_and_memory_is_flat(
    node: Callable[..., Node], orthanc: Orthanc
) -> None:
    quiet = 10.0 if STUDIES >= LONG else 4.0
    size = Size(
        studies=STUDIES, slices=SLICES, matrix=MATRIX, backlog=BACKLOG, quiet_seconds=quiet,
        hurried=HURRIED,
    )  # fmt: skip
    running = node(archive=orthanc, quiet_seconds=quiet, overrides=overrides(size))
    add_reader(running)
    running.start("run")
    report = soak(running, orthanc, size, _say)
    _say("\n" + report.speeds())
    assert report.proof["instances"] == (STUDIES + BACKLOG) * SLICES
    assert report.proof["studies"] == len(report.stored) == STUDIES
    assert report.proof["superseded"] == 0
    assert set(report.memory.memory) == {
        "run", "receive", "acceptor", "tick", "work", "analysis", "send", "web"
    }  # fmt: skip
    if STUDIES >= LONG:
        _say("\n" + report.memories() + "\n\n" + report.course())
        grown = [kind for kind, line in report.trends.items() if report.verdict(line) == "grows"]
        assert not grown, f"memory grows: {', '.join(grown)}"
