"""What a process no longer needs goes back to the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


THREADS = """
import ctypes, gc, sys, threading
from dicomnode.memory import settle

if sys.argv[1] == "settled":
    settle()
barrier = threading.Barrier(8)

def work():
    barrier.wait()
    for _ in range(50):
        bytes(bytearray(5000))
    barrier.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads: one.start()
for one in threads: one.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
print(gc.get_freeze_count())
"""


def heaps_and_frozen(tmp_path: Path, how: str) -> tuple[int, int]:
    found = tmp_path / how
    command = [sys.executable, "-c", THREADS, how, str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.read_text().count("<heap nr="), int(done.stdout)


def test_the_threads_of_a_settled_process_share_one_heap(tmp_path: Path) -> None:
    assert heaps_and_frozen(tmp_path, "as it is")[0] > 1, "they share one, so nothing is tested"
    heaps, frozen = heaps_and_frozen(tmp_path, "settled")
    assert heaps == 1
    assert frozen > 1000  # what was loaded is not looked at for garbage
