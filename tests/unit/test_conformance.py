"""The Conformance Statement says what the program does, and that in the documents is of today."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from analysis_kit import NOW
from results_kit import MODEL, NUMBERS, labels_of, scan_of
from typer.testing import CliRunner

from dicomnode import cli, conformance
from dicomnode.domain import admission
from dicomnode.domain.alternatives import REPORT_CLASSES, reports
from dicomnode.domain.plans import OBJECTS, SEG_PARTS, Plan
from dicomnode.network.contexts import KNOWN_STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicomnode.rejection_note import SOP_CLASS_UID as REJECTION_NOTE
from dicomnode.results import encode, prepare
from dicomnode.results.headers import IDENTITY
from dicomnode.settings import find_config, load, parse

PAGE = Path(__file__).resolve().parents[2] / "docs/conformance.md"


@pytest.fixture(scope="module")
def statement() -> str:
    return conformance.statement(load(find_config(None)))


def test_the_page_is_the_statement_of_the_default_configuration(statement: str) -> None:
    assert PAGE.read_text() == statement, "dicomnode conformance > docs/conformance.md renews it"


def test_the_command_prints_it(statement: str) -> None:
    shown = CliRunner().invoke(cli.app, ["conformance"])
    assert shown.exit_code == 0, shown.output
    assert shown.output == statement


def test_what_is_made_is_what_is_stated() -> None:
    scan = scan_of()
    forms = reports([OBJECTS])
    plan = Plan(
        job_id="1",
        model_id="test",
        analysed_at=NOW,
        objects=OBJECTS,
        reports=tuple(form for form in forms if form.refers_to == forms[0].refers_to),
    )
    made = encode(prepare(scan), labels_of(scan), MODEL, NUMBERS, plan)
    stated = set(conformance.CREATED)
    kinds = {result.kind for result in made} | set(SEG_PARTS)
    assert kinds == set(OBJECTS) == {kind for kind, _, _ in stated}
    found = {(r.kind, r.sop_class_uid, r.transfer_syntax_uid) for r in made}
    # Of two organs there are no bones, muscles and vessels.
    assert stated - found <= {(part, *conformance.CREATED[0][1:]) for part in SEG_PARTS}
    assert found <= stated
    assert {sop_class for kind, sop_class, _ in stated if kind == "sr"} == set(REPORT_CLASSES)
    assert conformance.KEY_OBJECTS == REJECTION_NOTE


def test_every_status_that_can_be_answered_is_stated() -> None:
    named = {value for name, value in vars(admission).items() if name.isupper()}
    statuses = {value for value in named if isinstance(value, int)}
    assert set(conformance.C_STORE_ANSWERS) == statuses


def test_every_uid_has_its_name(statement: str) -> None:
    for uid in (*KNOWN_STORAGE_CLASSES, *TRANSFER_SYNTAXES):
        (row,) = set(re.findall(rf"^\| ([^|]+) \| `{re.escape(uid)}` \|$", statement, re.M))
        assert not row[0].isdigit(), uid


def test_what_identifies_a_patient_is_named() -> None:
    assert len(IDENTITY) == len(re.split(", | or | and ", conformance.IDENTITY))


def test_the_sections_come_in_the_order_of_the_standard(statement: str) -> None:
    numbers = [int(n) for n in re.findall(r"^## (\d+) ", statement, re.M)]
    annexes = re.findall(r"^## Annex ([A-E])", statement, re.M)
    assert (numbers, annexes) == ([1, 2, 3, 4, 5, 6, 7, 8], list("ABCDE"))


def test_it_follows_the_configuration() -> None:
    text = """
node: {ae_title: OTHER, bind: 0.0.0.0, port: 11113}
peers:
  PACS: {ae_title: PACS, host: pacs, port: 104, query: true}
  CT: {ae_title: CT, host: ct, port: 104, accept: true, commit_here: true}
destinations:
  pacs: {peer: PACS, profile: modern, commitment: required, iocm: true}
receive: {unknown_sop_classes: refuse}
limits: {max_associations: 7}
"""
    found = conformance.statement(parse(text, Path("dicomnode.yaml")))
    assert "| Application Entity | `OTHER` |" in found
    assert "`commit_here: true` (here: CT):" in found
    assert "Incoming: 0.0.0.0, port 11113;" in found
    assert "| PACS | PACS | pacs | 104 | no | yes | no |" in found
    assert "| pacs | PACS | labelmap, preview, sr | required | yes |" in found
    assert "not named here none is accepted." in " ".join(found.split())
    assert "| Associations accepted at a time (`limits.max_associations`) | 7 |" in found
