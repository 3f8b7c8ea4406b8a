"""What a process no longer needs goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import os
from processes import memory_of
from dicomnode.memory import give_back

before = memory_of(os.getpid()).own
blocks = [bytearray(60_000) for _ in range(3000)]
kept = blocks[::500]
del blocks
held = memory_of(os.getpid()).own
give_back()
print(before, held, memory_of(os.getpid()).own)
"""


def test_what_was_freed_is_not_kept() -> None:
    environment = {**os.environ, "PYTHONPATH": "tests"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
    )
    before, held, after = map(float, done.stdout.split())
    assert held - before > 50, "nothing was kept, so nothing is tested"
    assert after - before < 10
