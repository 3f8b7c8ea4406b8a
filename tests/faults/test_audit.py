"""The audit trail of a whole node: repository away and back, roles killed, no name astray."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from audit_kit import counted, event_of, messages_in, patient_of, study_of, type_of
from nodes import Node, Status
from pydicom.uid import ExplicitVRLittleEndian
from repositories import Rsyslog
from scu import RejectedError, Wire, scu, store
from small_ct import CT, encoded, instance

STUDIES = 14
NAME = "Geheim{number:02}^Erna"
ID = "ID-GEHEIM-{number:02}"


def wire(study: int, number: int) -> Wire:
    uid = f"1.2.{study}.3.{number}"
    data = encoded(
        instance(
            SOPInstanceUID=uid,
            StudyInstanceUID=f"1.2.{study}",
            SeriesInstanceUID=f"1.2.{study}.3",
            PatientID=ID.format(number=study),
            PatientName=NAME.format(number=study),
            AccessionNumber=f"A{study}",
        )
    )
    return Wire(CT, uid, ExplicitVRLittleEndian, data)


def is_empty(status: Status) -> bool:
    return bool(status["audit"] is not None and status["audit"]["waiting"] == 0)


def transfers(messages: Any) -> dict[str, list[Any]]:
    """Return the receptions that messages tell of, by study."""
    found: dict[str, list[Any]] = {}
    for message in messages:
        if event_of(message) == "DICOM Instances Transferred":
            found.setdefault(str(study_of(message)), []).append(message)
    return found


@pytest.mark.peer("rsyslog")
def test_nothing_is_missing_and_no_name_is_where_it_should_not_be(
    node: Callable[..., Node], repository: Rsyslog
) -> None:
    seed = random.randrange(1 << 32)
    sys.stderr.write(f"seed {seed}\n")
    draw = random.Random(seed)
    retry = {"first_seconds": 0.2, "ceiling_seconds": 0.5}
    audit = {"file": {}, "syslog": repository.settings(), "retry": retry, "alarm_seconds": 0.5}
    running = node("receive", "tick", overrides={"audit": audit, "rules": []})
    sent: Counter[str] = Counter()

    def send(study: int) -> None:
        wires = [wire(study, number) for number in range(draw.randint(1, 4))]
        assert store(running.port, *wires) == [0] * len(wires)
        sent[f"1.2.{study}"] += len(wires)

    for study in range(4):
        send(study)
    repository.kill()
    for study in range(4, 8):
        send(study)  # reception does not wait for it
    running.wait_for(lambda _: "AUDIT_AWAY" in running.attention(), 20, "a person is called")
    with scu(running.port, [wire(8, 0)]) as requestor:
        assert requestor.store(wire(8, 0)) == 0
        sent["1.2.8"] = 1
        running.kill("receive")  # with the association open
    running.start("receive")
    with pytest.raises(RejectedError), scu(running.port, calling="EVIL"):
        pass
    assert "syslog: Connection refused" in running.status()["audit"]["says"]
    repository.start()
    for study in range(9, STUDIES):
        send(study)
        if study == 9:
            running.kill("tick")
            running.start("tick")
    running.wait_for(is_empty, 30, "all messages are kept")
    assert "AUDIT_AWAY" not in running.attention()
    assert running.status()["audit"]["says"] == "Nothing waits."

    in_files = messages_in(running.state / "audit")
    in_repository = repository.messages()
    for kept in (in_files, in_repository):
        came = transfers(kept)
        assert set(came) == set(sent)
        for study, messages in came.items():
            number = int(study.rpartition(".")[2])
            assert {patient_of(one) for one in messages} == {
                (ID.format(number=number), NAME.format(number=number))
            }
            told = {int(one.get("NumberOfInstances")) for one in messages[-1].iter("SOPClass")}
            assert told == {sent[study]}
        # Each was sent after the one before had ended; only the one that was left open is late.
        order = [int(study.rpartition(".")[2]) for study in came if study != "1.2.8"]
        assert order == sorted(order)
        assert counted(list(kept))["Application Activity"] == 4
        assert "Node Authentication" in {type_of(one) for one in kept}
    assert_no_names(running)


def assert_no_names(running: Node) -> None:
    """Patients stand in the spool's DICOM files and in the audit trail, and nowhere else."""
    places = [path for path in running.folder.rglob("*") if path.is_file()]
    trail, spool = running.state / "audit", running.spool / "instances"
    named = {
        path.relative_to(running.folder)
        for path in places
        if b"eheim" in path.read_bytes() or b"GEHEIM" in path.read_bytes()
    }
    assert named
    assert {path for path in named if path.suffix != ".dcm"} == {
        path.relative_to(running.folder) for path in trail.iterdir()
    }
    images = [running.folder / path for path in named if path.suffix == ".dcm"]
    assert all(path.is_relative_to(spool) for path in images)
    file = trail / "audit.log"
    assert (trail.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_trail_can_be_switched_on_and_off_while_the_node_runs(
    node: Callable[..., Node],
) -> None:
    running = node("receive", "tick", overrides={"rules": []})
    assert store(running.port, wire(1, 1)) == [0]
    assert not (running.state / "audit").exists()
    running.write_config({"audit": {"file": {}}})
    _hang_up(running)
    assert store(running.port, wire(2, 1)) == [0]
    running.wait_for(is_empty, 20, "it is kept")
    found = messages_in(running.state / "audit")
    assert set(transfers(found)) == {"1.2.2"}
    assert "Software Configuration" in {type_of(one) for one in found}


def _hang_up(running: Node) -> None:
    mark = running.log.stat().st_size
    for role in ("receive", "tick"):
        subprocess.run(["kill", "-HUP", str(running.pid(role))], check=True)
    running.wait_for(
        lambda _: running.log.read_bytes()[mark:].count(b"CONFIG_RELOADED") == 2, 20, "reloaded"
    )
