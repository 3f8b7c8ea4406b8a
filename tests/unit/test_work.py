"""Which devices the workers get, which models a device leaves to others, how results are kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_nnunet import write_model

from dicomnode.domain.identifiers import (
    InstanceUID,
    SeriesUID,
    SOPClassUID,
    TransferSyntaxUID,
)
from dicomnode.domain.plans import ResultInstance
from dicomnode.services import devices as service
from dicomnode.services import work
from dicomnode.services.devices import devices, left_to_others
from dicomnode.settings import Settings, parse
from dicomnode.spool import Spool


@pytest.mark.parametrize(
    ("chosen", "present", "expected"),
    [
        (("auto",), [], ("cpu",)),
        (("auto",), ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], ("cuda:0", "cuda:1")),
        (("cpu",), ["nvidia0"], ("cpu",)),
        (("cuda:1",), ["nvidia0", "nvidia1"], ("cuda:1",)),
    ],
)
def test_a_worker_for_every_gpu_or_one_for_the_cpu(
    tmp_path: Path,
    chosen: tuple[str, ...],
    present: list[str],
    expected: tuple[str, ...],
) -> None:
    for name in present:
        (tmp_path / name).touch()
    assert devices(chosen, tmp_path) == expected


@pytest.fixture
def two_models(tmp_path: Path) -> Settings:
    """A small model, and one that requires a GPU with 16 GiB."""
    write_model(tmp_path, model_id="small")
    write_model(tmp_path, model_id="large", requires={"gpu_memory_gib": 16})
    text = f"work: {{model_folders: [{tmp_path}]}}"
    return parse(text, tmp_path / "dicomnode.yaml")


def test_jobs_go_to_the_device_that_has_the_memory(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ask_gpus", lambda: (11.9, 24.0))
    left = left_to_others(two_models, ("cuda:0", "cuda:1"))
    assert left == {"cuda:0": {"large"}, "cuda:1": frozenset()}
    monkeypatch.setattr(service, "ask_gpus", lambda: (8.0, 8.0))
    left = left_to_others(two_models, ("cuda:0", "cuda:1"))
    assert left == {"cuda:0": frozenset(), "cuda:1": frozenset()}


def test_a_single_device_takes_everything_and_nobody_is_asked(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ask_gpus", lambda: pytest.fail("asked"))
    assert left_to_others(two_models, ("cpu",)) == {}


def test_gpus_that_cannot_be_asked_are_compared_with_nothing(
    two_models: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> tuple[float, ...]:
        raise OSError("no driver")

    monkeypatch.setattr(service, "ask_gpus", fail)
    assert left_to_others(two_models, ("cuda:0", "cuda:1")) == {}
    assert "DEVICES_NOT_COMPARED" in caplog.text


def test_an_analysis_computes_only_when_nobody_else_wants_to() -> None:
    program = (
        "import os, threading; from dicomnode.engines.local import give_way; give_way()\n"
        "later = threading.Thread(target=lambda: print(os.sched_getscheduler(0)))\n"
        "later.start(); later.join()\n"
        "print(os.getsid(0) == os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(os.SCHED_IDLE), "True"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="has no autogroups")
@pytest.mark.parametrize("leads", [False, True])
def test_an_analysis_takes_the_least_share_also_where_it_leads_a_session(leads: bool) -> None:
    program = (
        "from dicomnode.engines.local import give_way; give_way()\n"
        "print(open('/proc/self/autogroup').read())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=leads,
    )
    assert done.stdout.split()[1:] == ["nice", "19"]


def test_a_result_is_taken_over_as_a_file_or_written_from_its_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "work")
    spool.create()
    bytes_ = ResultInstance(
        kind="sr",
        sop_class_uid=SOPClassUID("1.2"),
        sop_instance_uid=InstanceUID("1.3"),
        series_uid=SeriesUID("1.4"),
        transfer_syntax_uid=TransferSyntaxUID("1.5"),
        data=b"report",
        summary={},
    )
    with spool.workspace() as folder:
        (folder / "1.6.dcm").write_bytes(b"segmentation")
        file = replace(bytes_, data=b"", file=folder / "1.6.dcm")
        taken = work._store(spool, "results/1/1.6.dcm", file)
        written = work._store(spool, "results/1/1.3.dcm", bytes_)
        assert list(folder.iterdir()) == []
    assert taken == (hashlib.sha256(b"segmentation").hexdigest(), 12)
    assert written == (hashlib.sha256(b"report").hexdigest(), 6)
    assert spool.path("results/1/1.6.dcm").read_bytes() == b"segmentation"
    assert spool.path("results/1/1.3.dcm").read_bytes() == b"report"
    assert list(spool.tmp.iterdir()) == []


def test_a_fault_of_the_software_ends_the_role_and_not_only_its_worker(tmp_path: Path) -> None:
    config = tmp_path / "dicomnode.yaml"
    config.write_text(f"storage: {{folder: {tmp_path / 'state'}}}\nwork: {{devices: [cpu]}}\n")
    program = (
        "from pathlib import Path; from dicomnode.services import work\n"
        "from dicomnode.settings import load\n"
        "work.Worker._run_one = lambda self: 1 / 0\n"
        f"work.run(load(Path({str(config)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
