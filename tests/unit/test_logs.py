"""Log lines: one event, its fields, nothing that a peer could forge and no patient."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pydicom
import pytest

from dicomnode import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    names = ("alembic", "apscheduler", "pynetdicom", "pydicom")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:], level = before[0], before[1]
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def line(
    capsys: pytest.CaptureFixture[str], message: str, fields: dict[str, object] | None = None
) -> str:
    logs.set_up("receive")
    logging.getLogger("dicomnode.test").info(message, extra={"fields": fields or {}})
    return capsys.readouterr().err.rstrip("\n")


def test_a_line_has_time_level_role_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    said = line(capsys, "STUDY_CLOSED", {"study": 7, "detail": "1 jobs queued"})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 info receive STUDY_CLOSED study=7"
        r' detail="1 jobs queued"',
        said,
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        (0.5, "0.5"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a "quoted" word', r'"a \"quoted\" word"'),
        ("a=b", '"a=b"'),
        ("a\nb", r'"a\nb"'),
        ("a\rb", r'"a\rb"'),
        ("\x1b[31m", r'"\u001b[31m"'),
        ("\x9b31m", r'"\u009b31m"'),
        ("a\u2028b", r'"a\u2028b"'),
        ("Größe 3", '"Größe 3"'),
    ],
)
def test_no_value_begins_a_field_or_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], value: object, written: str
) -> None:
    said = line(capsys, "EVENT", {"calling_ae": value, "last": 1})
    assert said.split(" EVENT ")[1] == f"calling_ae={written} last=1"
    assert len(said.splitlines()) == 1


def test_a_traceback_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("work")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("dicomnode.test").exception("ANALYSIS_FAILED")
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("error work ANALYSIS_FAILED")
    assert rest[-1] == "ValueError: broken"


def test_pydicom_does_not_quote_patients_into_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("receive")
    dataset = pydicom.Dataset()
    dataset.PatientID = "SECRET" * 20
    dataset.PatientBirthDate = "SECRET"
    dataset.SpecificCharacterSet = "SECRET"
    assert dataset.PatientID
    logging.getLogger("pydicom").warning("Invalid value: SECRET")
    logging.getLogger("pynetdicom").info("chatty")
    assert capsys.readouterr().err == ""


def test_setting_up_again_writes_no_line_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("one")
    assert line(capsys, "EVENT").count("EVENT") == 1


def test_json_lines_hold_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(logs.FORMAT, raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs.set_up("work")
    logs.set_format("json")
    try:
        raise ValueError("odd")
    except ValueError:
        fields = {"uid": "1.2", "said": "a\nb=c", "count": 3}
        logging.getLogger("x").exception("EVENT", extra={"fields": fields})
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["role"], said["event"]) == ("error", "work", "EVENT")
    assert said["fields"] == fields
    assert said["exception"].endswith("ValueError: odd")
    logs.set_up("send")  # as a process does that is started from here
    logging.getLogger("x").info("NEXT")
    assert json.loads(capsys.readouterr().err)["role"] == "send"
