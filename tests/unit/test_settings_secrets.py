"""What a configuration takes from the environment and from files, and what it never shows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dicomnode.errors import SettingsError
from dicomnode.settings import load, parse

HERE = Path("/etc/dicomnode/node.yaml")
URL = "postgresql+psycopg://dicomnode:hunter2@db/dicomnode"


def test_variables_are_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_PORT", "11113")
    monkeypatch.setenv("SITE", "NORTH")
    settings = parse("node:\n  ae_title: AI_${SITE}\n  port: ${CT_PORT}\n", HERE)
    assert (settings.node.ae_title, settings.node.port) == ("AI_NORTH", 11113)


def test_a_doubled_dollar_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("X", raising=False)
    rule = "rules: [{name: 'cost $5 $${X} $$', model: null}]"
    assert parse(rule, HERE).rules[0].name == "cost $5 ${X} $$"


def test_a_variable_is_a_value_and_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "a, port: 1}\nlimits: {x: [")
    rule = "rules:\n  - name: ${NAME}\n    model: null"
    assert parse(rule, HERE).rules[0].name == "a, port: 1}\nlimits: {x: ["


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "node:\n  port: ${NOT_SET}",
            "2:3: node.port: the environment variable NOT_SET is not set",
        ),
        ("node:\n  id: ${A-B}", "2:3: node.id: ${A-B} is no name of an environment variable"),
        (
            "storage: {ledger: file:none}",
            "1:11: storage.ledger: /etc/dicomnode/none cannot be read",
        ),
    ],
)
def test_what_cannot_be_filled_in_is_a_fault(
    text: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(SettingsError) as error:
        parse(text, HERE)
    assert str(error.value).startswith(f"{HERE}:{fault}")


def test_a_secret_from_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    config = tmp_path / "dicomnode.yaml"
    config.write_text("storage: {ledger: file:url}")
    assert load(config).ledger_url == URL
    (tmp_path / "url").write_text(" \n")
    with pytest.raises(SettingsError, match=r"1:11: storage.ledger: .*/url is empty"):
        load(config)


def test_only_secrets_are_read_from_files() -> None:
    assert parse("rules: [{name: 'file:none', model: null}]", HERE).rules[0].name == "file:none"


def test_a_secret_is_not_in_what_settings_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    said = "storage: {ledger: 'postgresql+psycopg://dicomnode:${PASSWORD}@db/dicomnode'}"
    settings = parse(said, HERE)
    assert settings.ledger_url == URL
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        "node:\n  port: ${SECRET}",
        "node: {port: '${SECRET}'}",
        "storage: {ledger: [hunter2]}",
        "work: {threads: '${SECRET}', devices: ['${SECRET}']}",
        "x: &x {port: '${SECRET}'}\nnode: {<<: *x}",
        "node: {port: &p '${SECRET}'}\nlimits: {max_associations: *p}",
    ],
)
def test_no_fault_shows_what_was_filled_in(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(SettingsError) as error, caplog.at_level(logging.DEBUG):
        parse(text, HERE)
    assert "hunter2" not in str(error.value) + caplog.text
    assert error.value.__cause__ is None


def test_many_aliases_take_no_time() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(SettingsError, match="unknown key"):
        parse("\n".join(lines), HERE)
