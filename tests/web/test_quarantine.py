"""The page of the quarantine: what a viewer sees, what an operator does, from a browser."""

from __future__ import annotations

from typing import Any

import pytest
from ledger_kit import rows
from small_ct import CT, encoded, instance
from web_kit import Web, act

from dicomnode.instances import file_prefix
from dicomnode.ledger import Ledger
from dicomnode.ledger.tables import event
from dicomnode.ledger.tables import instance as instances

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def name(web: Web) -> str:
    """A file in quarantine, as the receiver puts it there."""
    data = encoded(instance(SOPInstanceUID="1.2.3.4", PatientName="SECRET^NAME"))
    tmp = web.spool.write_tmp([file_prefix(CT, "9.9", EXPLICIT), data])
    note = {"code": "DATA_SET_DOES_NOT_MATCH", "detail": "announced 9.9 <b>", "status": 0xA900,
            "calling_ae": "CT1", "sop_instance_uid": "1.2.3.4"}  # fmt: skip
    return web.spool.put_into_quarantine(tmp, note).split("/")[1].removesuffix(".dcm")


def test_a_viewer_sees_why_and_no_button(web: Web, name: str) -> None:
    text = web.browser("vera").get("/quarantine").text
    for part in ("another one than its sender announced", "announced 9.9 &lt;b&gt;", "CT1",
                 "1.2.3.4", "Put the file back if"):  # fmt: skip
        assert part in text, part
    assert "SECRET" not in text
    assert "/act/" not in text
    (one,) = web.program("vera").get("/api/quarantine").json()["files"]
    assert one["name"] == name
    assert "1 file" in web.browser("vera").get("/").text


def test_an_operator_puts_it_back(web: Web, name: str, ledger: Ledger) -> None:
    client = web.browser("olga")
    assert f"/act/put-back?file={name}" in client.get("/quarantine").text
    answer = act(client, "put-back", file=name)
    assert "It is taken in as if it had just come." in answer.text
    assert [row.sop_instance_uid for row in rows(ledger, instances)] == ["1.2.3.4"]
    assert rows(ledger, event)[-1].detail == f"{name} by olga: STORED"
    assert "Nothing to do" in act(client, "put-back", file=name).text
    assert "Nothing is in quarantine." in client.get("/quarantine").text


def test_what_stays_says_why(web: Web, name: str) -> None:
    (web.spool.quarantine / f"{name}.dcm").write_bytes(b"garbage")
    answer = act(web.browser("olga"), "put-back", file=name)
    assert "It stays in quarantine: Something came that is not readable as DICOM" in answer.text


def test_an_operator_discards_it_with_a_reason(web: Web, name: str, ledger: Ledger) -> None:
    client = web.browser("olga")
    assert act(client, "discard-file", file=name).status_code == 422
    assert "It is deleted." in act(client, "discard-file", file=name, reason="a test").text
    assert not list(web.spool.quarantine.iterdir())
    assert rows(ledger, event)[-1].detail.endswith("by olga: a test")
    again = act(client, "discard-file", file=name, reason="a test")
    assert "Nothing to do" in again.text


@pytest.mark.parametrize("wrong", ["", "../x", "g" * 32, "0" * 33])
def test_only_names_of_the_quarantine_are_taken(web: Web, wrong: Any) -> None:
    for one in ("put-back", "discard-file"):
        answer = web.program("olga").post(f"/api/act/{one}", data={"file": wrong, "confirm": "yes"})
        assert answer.status_code == 422
        assert "file: expected" in answer.json()["error"]
