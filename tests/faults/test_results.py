"""Result files that were tampered with, or lost, are never delivered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nodes import Node
from peers import Orthanc
from scu import store
from small_series import phantom_series


@pytest.mark.peer("orthanc")
def test_a_changed_or_lost_result_is_not_sent(node: Callable[..., Node], orthanc: Orthanc) -> None:
    running = node("receive", "tick", "work", archive=orthanc)
    assert set(store(running.port, *phantom_series(8))) == {0x0000}
    running.wait_for(lambda status: status["counts"]["jobs"] == {"DONE": 1}, timeout=120)
    path = max(running.files("results"), key=lambda file: file.stat().st_size)  # the SEG
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    running.start("send")
    status = running.wait_for(lambda status: status["counts"]["deliveries"] == {"REFUSED": 2})

    reasons = {row["kind"]: row["reason"] for row in status["deliveries"]}
    assert reasons == {"seg": "BYTES_CHANGED", "sr": "REFERS_TO_REFUSED"}
    assert "DELIVERY_REFUSED" in running.attention()
    assert orthanc.instances() == {}
