"""An analysis that the kernel kills for lack of memory is told from one that somebody kills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dicomnode.domain.plans import Plan
from dicomnode.engines import local
from dicomnode.engines.local import LocalEngine, oom_kills
from dicomnode.errors import EngineError

GROUPS = Path("/sys/fs/cgroup/memory")
PLAN = Plan(job_id="1", model_id="demo", analysed_at=None)  # type: ignore[arg-type]


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    engine = LocalEngine(analyses_per_process=100, timeout_seconds=100)
    yield engine
    engine.close()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may have 40 MB: Python starts in it, and torch does not."""
    group = GROUPS / f"dicomnode-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(40 << 20))
    except OSError:
        pytest.skip("this user may not make a memory control group (version 1)")
    yield group
    for _ in range(50):
        with suppress(OSError):
            group.rmdir()
            break
        time.sleep(0.1)


def child_of(engine: LocalEngine) -> int:
    engine._ensure()
    return int(engine._process.pid)


def test_the_kernel_killed_it_for_lack_of_memory(engine: LocalEngine, small_group: Path) -> None:
    before = oom_kills()
    assert before is not None
    (small_group / "cgroup.procs").write_text(str(child_of(engine)))
    with pytest.raises(EngineError) as caught:
        engine.analyze([Path("/nonexistent")], PLAN, lambda *_: None, lambda: True)
    assert caught.value.code == "WORKER_OUT_OF_MEMORY"
    now = oom_kills()
    assert now is not None
    assert now > before


def test_somebody_killed_it(engine: LocalEngine) -> None:
    with pytest.raises(EngineError) as caught:
        engine.analyze([Path("/nonexistent")], PLAN, lambda *_: None, _killing(engine))
    assert caught.value.code == "WORKER_KILLED"


def _killing(engine: LocalEngine) -> Callable[[], bool]:
    """Kill the process when it is first asked whether to go on."""

    def keep_going() -> bool:
        with suppress(ProcessLookupError, AttributeError):
            os.kill(int(engine._process.pid), signal.SIGKILL)
        return True

    return keep_going


@pytest.mark.parametrize(
    ("text", "count"), [("pgfault 3\noom_kill 7\n", 7), ("pgfault 3\n", None), ("", None)]
)
def test_the_kernels_count(tmp_path: Path, text: str, count: int | None) -> None:
    (tmp_path / "vmstat").write_text(text)
    assert oom_kills(tmp_path / "vmstat") == count
    assert local.oom_kills(tmp_path / "missing") is None
