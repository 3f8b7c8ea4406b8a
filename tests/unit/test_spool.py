"""Bytes: written beside, synchronised, renamed; and nobody else's files touched."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dicomnode.domain.identifiers import InstanceUID, InvalidUIDError, SeriesUID, StudyUID
from dicomnode.spool import RoleIsRunningError, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", "receive")
    made.create()
    return made


def test_the_folders_are_for_their_owner_alone(spool: Spool) -> None:
    """They hold patients' images."""
    spool.write("instances/1.2/1.3/1.4.dcm", b"x")
    for folder in (spool.tmp, spool.instances, spool.results, spool.quarantine):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((spool.instances / "1.2" / "1.3").stat().st_mode) == 0o700
    spool.create()


def test_a_file_lies_where_its_uids_say(spool: Spool) -> None:
    path = spool.instance_path(StudyUID("1.2"), SeriesUID("1.3"), InstanceUID("1.4"))
    assert path == "instances/1.2/1.3/1.4.dcm"
    assert spool.path(path) == spool.root / path
    assert spool.result_path(7, "labels.npz") == "results/7/labels.npz"


@pytest.mark.parametrize("uid", ["..", "../../etc", "1.2/3", "", "1.2\0x"])
def test_nothing_but_a_uid_names_a_folder(spool: Spool, uid: str) -> None:
    for place in range(3):
        uids = ["1.2", "1.3", "1.4"]
        uids[place] = uid
        with pytest.raises(InvalidUIDError):
            spool.instance_path(StudyUID(uids[0]), SeriesUID(uids[1]), InstanceUID(uids[2]))


@pytest.mark.parametrize("name", ["a/b", "../x", "/etc/passwd", "", "..", "."])
def test_a_result_has_a_plain_name(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="plain file name"):
        spool.result_path(1, name)


def test_what_is_written_is_there_in_one_piece(spool: Spool) -> None:
    chunks = [b"a" * 1_000_000, b"", b"b", memoryview(b"c" * 3)]
    tmp = spool.write_tmp(chunks)  # type: ignore[arg-type]
    assert tmp.parent == spool.tmp
    spool.publish(tmp, "results/1/x.dcm")
    assert spool.path("results/1/x.dcm").read_bytes() == b"".join(chunks)
    assert list(spool.tmp.iterdir()) == []


def test_bytes_folder_and_parents_are_synchronised_before_anybody_may_hear_of_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 1. What fsync sees, in order: the file, then every folder that got a new entry."""
    synchronised: list[str] = []

    def name_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", lambda fd: synchronised.append(name_of(fd)))
    monkeypatch.setattr(os, "fdatasync", lambda fd: synchronised.append(name_of(fd)))
    spool.write("instances/1.2/1.3/1.4.dcm", b"x")
    root = str(spool.root)
    assert synchronised[0].startswith(f"{root}/tmp/receive/")
    assert synchronised[1:] == [
        f"{root}/instances",
        f"{root}/instances/1.2",
        f"{root}/instances/1.2/1.3",
    ]
    spool.write("instances/1.2/1.3/1.5.dcm", b"x")
    assert synchronised[5:] == [f"{root}/instances/1.2/1.3"]


def test_a_write_that_fails_leaves_nothing(spool: Spool) -> None:
    def chunks() -> Any:
        yield b"first"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        spool.write_tmp(chunks())
    assert list(spool.tmp.iterdir()) == []


def test_a_new_content_takes_the_place_of_the_old_at_once(spool: Spool) -> None:
    spool.write("results/1/x.dcm", b"old")
    spool.write("results/1/x.dcm", b"new")
    assert spool.path("results/1/x.dcm").read_bytes() == b"new"


def test_quarantine_keeps_bytes_and_reason(spool: Spool) -> None:
    place = spool.put_into_quarantine(spool.write_tmp([b"bad"]), {"code": "WHY", "status": 0xC000})
    path = spool.path(place)
    assert path.read_bytes() == b"bad"
    assert json.loads(path.with_suffix(".json").read_text()) == {"code": "WHY", "status": 0xC000}
    other = spool.put_into_quarantine(spool.write_tmp([b"bad"]), {"code": "WHY"})
    assert other != place


def test_a_role_clears_its_own_unfinished_files_only(spool: Spool) -> None:
    """A receiver that starts again must not take the file that the worker is writing."""
    worker = Spool(spool.root, "work")
    worker.create()
    theirs = worker.write_tmp([b"x"])
    ours = [spool.write_tmp([b"x"]) for _ in range(2)]
    assert spool.clear_tmp() == 2
    assert not any(path.exists() for path in ours)
    worker.publish(theirs, "results/1/x.dcm")
    assert spool.clear_tmp() == 0


def test_a_workspace_is_gone_at_its_end_and_what_was_adopted_stays(spool: Spool) -> None:
    with pytest.raises(RuntimeError), spool.workspace() as folder:
        (folder / "kept").write_bytes(b"result")
        (folder / "left").write_bytes(b"half")
        assert folder.stat().st_mode & 0o777 == 0o700
        spool.adopt(folder / "kept", "results/1/x.dcm")
        raise RuntimeError
    assert not folder.exists()
    assert spool.path("results/1/x.dcm").read_bytes() == b"result"


def test_a_workspace_that_a_crash_left_is_cleared(spool: Spool) -> None:
    (spool.tmp / "abandoned").mkdir()
    (spool.tmp / "abandoned" / "half").write_bytes(b"x")
    assert spool.clear_tmp() == 1
    assert not any(spool.tmp.iterdir())


def test_the_instances_that_lie_there(spool: Spool) -> None:
    for uid in ("1.5", "1.4"):
        spool.write(f"instances/1.2/1.3/{uid}.dcm", b"x")
    spool.write("results/1/x.dcm", b"x")
    spool.write_tmp([b"x"])
    assert list(spool.stored_instances()) == [
        "instances/1.2/1.3/1.4.dcm",
        "instances/1.2/1.3/1.5.dcm",
    ]


def test_free_space_is_what_this_user_may_write(spool: Spool) -> None:
    facts = os.statvfs(spool.root)
    assert spool.free_bytes() == pytest.approx(facts.f_bavail * facts.f_frsize, rel=0.05)


def test_a_role_has_one_process(spool: Spool) -> None:
    with spool.only("receive"):
        with pytest.raises(RoleIsRunningError, match="receive"), spool.only("receive"):
            pass
        with spool.only("send"):
            pass
    with spool.only("receive"):
        pass


def test_the_place_of_a_process_that_was_killed_is_free(spool: Spool) -> None:
    program = (
        "import sys, pathlib; from dicomnode.spool import Spool\n"
        "with Spool(pathlib.Path(sys.argv[1])).only('receive'):\n"
        "    print('holds', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(spool.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"holds\n"
    with pytest.raises(RoleIsRunningError), spool.only("receive"):
        pass
    process.kill()
    process.communicate()
    with spool.only("receive"):
        pass
