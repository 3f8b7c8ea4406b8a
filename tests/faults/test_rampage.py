"""kill -9 at random, of each role and of all, under load. `make soak-kill` does it for longer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

import pytest
from kills import SLICES, TARGETS, rampage
from nodes import Node
from peers import Orthanc

pytestmark = pytest.mark.peer("orthanc")

KILLS = int(os.environ.get("DICOMNODE_KILLS", "6"))
SEED = int(os.environ.get("DICOMNODE_SEED", "0")) or int.from_bytes(os.urandom(2), "big") + 1


@pytest.mark.timeout(120 + 30 * KILLS)
def test_nothing_acknowledged_is_lost_and_one_result_set_arrives(
    node: Callable[..., Node], orthanc: Orthanc
) -> None:
    sys.stderr.write(f"DICOMNODE_SEED={SEED} DICOMNODE_KILLS={KILLS}\n")
    running = node(
        "run",
        archive=orthanc,
        quiet_seconds=4.0,
        # Each death of a worker counts as a failed attempt, and many die here.
        overrides={"work": {"max_attempts": 20}},
    )
    found = rampage(running, orthanc, kills=KILLS, seed=SEED, senders=1 + (KILLS > 20))
    sys.stderr.write(json.dumps(found, indent=1) + "\n")
    assert sum(found["kills"].values()) == KILLS
    assert found["studies"] > 0
    assert found["instances"] >= SLICES * found["studies"] + 100
    if KILLS >= 100:
        assert set(found["kills"]) == set(TARGETS)
