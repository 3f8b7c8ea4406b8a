"""kill -9 of every role at its work: nothing acknowledged is lost, and one result set arrives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from nodes import Node, are_delivered
from peers import Orthanc, wait_until
from processes import analyses
from proxies import Proxy
from scu import Wire, scu, store
from small_series import phantom_series

pytestmark = pytest.mark.peer("orthanc")


def are_stored(node: Node, wires: list[Wire]) -> bool:
    """Whether every instance lies in the spool with its very bytes."""
    files = {path.stem: path for path in node.files()}
    return all(
        wire.sop_instance_uid in files
        and files[wire.sop_instance_uid].read_bytes().endswith(wire.data)
        for wire in wires
    )


def one_result_set(orthanc: Orthanc) -> bool:
    """Whether one SEG, one preview and one SR are there; `results` fails if there are two."""
    return set(orthanc.results()) == {"SEG", "OT", "SR"}


def test_every_role_dies_at_its_work(node: Callable[..., Node], orthanc: Orthanc) -> None:
    """One series, and each role is killed while it has the series in hand."""
    wires = phantom_series(1)
    with Proxy(orthanc.port) as proxy:
        running = node("run", archive=proxy.port, quiet_seconds=10.0)
        _receive_dies_while_it_arrives(running, wires)
        running.kill("tick")  # while the study is open: its deadline is in the ledger
        _work_dies_while_it_analyses(running)
        proxy.hold_after(10_000)  # in the midst of the SEG, which goes deflated
        _send_dies_while_it_sends(running, proxy, orthanc)
        status = running.wait_for(are_delivered(3), timeout=120)

    assert one_result_set(orthanc)
    assert are_stored(running, wires)
    assert status["counts"]["instances"] == len(wires)
    assert status["counts"]["jobs"] == {"DONE": 1}
    assert [row["attempt"] for row in status["deliveries"]] == [1, 1, 2]
    codes = [event["code"] for event in running.events(status["studies"][0]["study_uid"])]
    assert codes.count("JOB_DONE") == 1


def _receive_dies_while_it_arrives(running: Node, wires: list[Wire]) -> None:
    # pynetdicom does not always notice that a connection has ended: then it waits out its time,
    # which must be shorter than the study's quiet time.
    with scu(running.port, wires, timeout=4.0) as requestor:
        for wire in wires[:15]:
            assert requestor.store(wire) == 0x0000
        pid = running.kill("receive")
        status = requestor.store(wires[15])
        assert status in (None, 0xA700, 0x0000)  # its acceptor may not have heard of it yet
    running.wait_for_role("receive", other_than=pid)
    wait_until(lambda: _accepts(running), 20, "the receiver listens again")
    promised = wires[: 16 if status == 0x0000 else 15]
    running.wait_for(lambda _: are_stored(running, promised), timeout=20)
    assert set(store(running.port, *wires)) == {0x0000}


def _work_dies_while_it_analyses(running: Node) -> None:
    running.wait_for(lambda status: status["counts"]["jobs"] == {"LEASED": 1}, timeout=60)
    pid = running.kill("work")
    running.wait_for_role("work", other_than=pid)
    status = running.wait_for(
        lambda status: status["jobs"][0]["failures"] == 1 and status["jobs"][0]["attempt"] == 2
    )
    assert status["counts"]["jobs"] == {"LEASED": 1}


def _send_dies_while_it_sends(running: Node, proxy: Proxy, orthanc: Orthanc) -> None:
    wait_until(lambda: proxy.is_holding, 120, "a SEG is on its way")
    assert running.status()["counts"]["deliveries"] == {"PENDING": 2, "SENDING": 1}
    pid = running.kill("send")
    assert orthanc.results() == {}
    proxy.hold_after(None)
    running.wait_for_role("send", other_than=pid)


def _accepts(node: Node) -> bool:
    try:
        with scu(node.port) as requestor:
            return requestor.echo() == 0x0000
    except AssertionError:
        return False


def test_the_analysis_process_dies(node: Callable[..., Node], orthanc: Orthanc) -> None:
    running = node("run", archive=orthanc)
    assert set(store(running.port, *phantom_series(3))) == {0x0000}
    running.wait_for(lambda status: status["counts"]["jobs"] == {"LEASED": 1}, timeout=30)
    worker = running.pid("work")
    wait_until(lambda: analyses(worker), 30, "the analysis process runs")
    for child in analyses(worker):
        os.kill(child, signal.SIGKILL)
    status = running.wait_for(are_delivered(3), timeout=120)

    assert running.pid("work") == worker  # the dispatcher lived on and said what happened
    assert status["jobs"][0]["failures"] == 1
    retries = [
        event["detail"]
        for event in running.events(status["studies"][0]["study_uid"])
        if event["code"] == "JOB_RETRY"
    ]
    assert len(retries) == 1
    assert retries[0].startswith("WORKER_KILLED")
    assert one_result_set(orthanc)


def test_everything_dies_with_the_supervisor(node: Callable[..., Node], orthanc: Orthanc) -> None:
    running = node("run", archive=orthanc)
    wires = phantom_series(6)
    assert set(store(running.port, *wires[:20])) == {0x0000}
    running.kill_supervisor()
    assert are_stored(running, wires[:20])
    running.start("run")
    assert set(store(running.port, *wires)) == {0x0000}
    running.wait_for(are_delivered(3), timeout=120)
    assert one_result_set(orthanc)
    assert are_stored(running, wires)
