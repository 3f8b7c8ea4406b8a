"""The JSON Schema that editors use: it says what the settings say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from dicomnode.cli import app
from dicomnode.settings.schema import schema, text

CONFIG = Path(__file__).parents[2] / "config"
FILE = CONFIG / "dicomnode.schema.json"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


def test_the_file_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert (printed.exit_code, printed.output) == (0, text())
    assert FILE.read_text() == text(), "renew it: dicomnode schema > config/dicomnode.schema.json"


@pytest.mark.parametrize("example", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_names_it_and_holds_to_it(
    validator: Draft202012Validator, example: Path
) -> None:
    said = example.read_text()
    assert said.startswith("# yaml-language-server: $schema=dicomnode.schema.json\n")
    assert [error.message for error in validator.iter_errors(yaml.safe_load(said))] == []


@pytest.mark.parametrize(
    "good",
    [
        "",
        "node:\nlimits:\n",
        "node: {port: null}",
        "node: {port: '${PORT}'}",
        "work: {devices: cpu}",
        "peers: {P: {ae_title: P, host: h, addresses: 10.0.0.1}}",
    ],
)
def test_what_may_be_written_is_good(validator: Draft202012Validator, good: str) -> None:
    assert validator.is_valid(yaml.safe_load(good))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("nod: {}", "'nod' was unexpected"),
        ("node: {port: 0}", "not valid under any"),
        ("node: {port: eleven}", "not valid under any"),
        ("peers: {P: {host: h}}", "not valid under any"),
        ("destinations: {d: {peer: P, profile: pac}}", "not valid under any"),
        ("rules: [{name: a, model: b, wen: {}}]", "not valid under any"),
    ],
)
def test_what_may_not_be_written_is_seen(
    validator: Draft202012Validator, bad: str, said: str
) -> None:
    (error, *_) = validator.iter_errors(yaml.safe_load(bad))
    assert said in error.message
