"""Result files that were tampered with, or lost, are never delivered."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pydicom
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
    (path,) = (
        file
        for file in running.files("results")
        if file.suffix == ".dcm" and pydicom.dcmread(file).Modality == "SEG"
    )
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    running.start("send")
    ended = {"REFUSED": 1, "SUBSTITUTED": 1, "DELIVERED": 2}
    status = running.wait_for(lambda status: status["counts"]["deliveries"] == ended)

    reasons = {(row["kind"], row["state"]): row["reason"] for row in status["deliveries"]}
    assert reasons == {
        ("seg", "REFUSED"): "BYTES_CHANGED",
        ("preview", "DELIVERED"): None,
        ("sr", "SUBSTITUTED"): "REFERS_TO_REFUSED",
        ("sr", "DELIVERED"): None,
    }
    assert "DELIVERY_REFUSED" in running.attention()
    there = orthanc.results()
    assert set(there) == {"OT", "SR"}
    named = str(there["SR"].CurrentRequestedProcedureEvidenceSequence)
    assert there["OT"].SOPInstanceUID in named
    assert pydicom.dcmread(BytesIO(bytes(data))).SOPInstanceUID not in named
