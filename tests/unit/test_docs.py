"""The texts against the code: commands, keys, codes, tables, examples and links hold."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from typer.testing import CliRunner

from dicomnode import cli
from dicomnode.domain.lifecycle import LIVES
from dicomnode.domain.reasons import REASONS
from dicomnode.instances.signs import REJECTION_CODES
from dicomnode.ledger.tables import metadata
from dicomnode.settings import Settings, parse
from inference.card_document import CardDocument

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
}
SCHEMA = json.loads((ROOT / "config/dicomnode.schema.json").read_text())
CONFIGURATION = PAGES["docs/configuration.md"].read_text()
OPERATING = PAGES["docs/operating.md"].read_text()
ARCHITECTURE = PAGES["docs/architecture.md"].read_text()
COMMANDS = {
    command.name or command.callback.__name__
    for command in cli.app.registered_commands
    if command.callback is not None
} | {str(group.name) for group in cli.app.registered_groups}
pages = pytest.mark.parametrize("page", PAGES)


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of every table row of a page."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# Commands


@pages
def test_commands_that_a_page_names_exist(page: str) -> None:
    text = PAGES[page].read_text()
    in_code = [*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^ {4}(.+)$", text, re.MULTILINE)]
    named = {
        word for code in in_code for word in re.findall(r"(?:^|/| )dicomnode ([a-z]+)\b", code)
    }
    # `install -g dicomnode config/...` is no command of ours.
    assert named - COMMANDS - {"config"} == set()


def test_the_readme_names_every_command() -> None:
    named = {
        row[0].strip("`").split()[1]
        for row in rows(README.read_text())
        if row[0][:11] == "`dicomnode "
    }
    assert named == COMMANDS - {"version"}


def test_the_readme_and_the_makefile_agree() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^ {4}make ([a-z-]+)", README.read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(named) <= set(targets)


@pytest.mark.parametrize("command", [None, *sorted(COMMANDS)])
def test_the_help_of_every_command_runs(command: str | None) -> None:
    arguments = ["--help"] if command is None else [command, "--help"]
    shown = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    if command is None:
        assert all(name in shown.output for name in COMMANDS)
        assert "not for diagnosis" in shown.output


# Links and examples


@pages
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page].read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


@pages
def test_tests_and_files_that_a_page_names_exist(page: str) -> None:
    for name in re.findall(
        r"`((?:tests|config|docs|systemd|inference)/[\w./-]+)`", PAGES[page].read_text()
    ):
        if not name.startswith("inference/models/"):
            assert (ROOT / name).exists(), name


def test_each_promise_of_the_readme_names_what_holds_it() -> None:
    promises = README.read_text().split("| promise | held by |")[1].split("\n\n")[0]
    found = list(rows(promises))
    assert len(found) > 50
    for promise, held_by in found:
        assert re.search(r"`(tests/[\w/]+\.py|make [a-z-]+)`", held_by), promise


@pages
def test_configurations_in_a_page_are_good(page: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sqlite:///ledger.sqlite\n")
    secret.chmod(0o600)
    for text in blocks(PAGES[page].read_text(), "yaml"):
        # What is fenced as `yml` is no configuration: the tests of models take it.
        parse(re.sub(r"file:/\S+", f"file:{secret}", text), Path(page))


@pages
def test_configurations_in_a_page_are_fenced(page: str) -> None:
    # What is only indented nobody would try.
    sections = "|".join(Settings.model_fields)
    text = re.sub(r"^```.*?^```", "", PAGES[page].read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(rf"^ {{4}}(?:{sections}):.*$", text, re.MULTILINE) == []


@pages
def test_keys_and_values_in_a_sentence_are_good(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page].read_text(), flags=re.MULTILINE | re.DOTALL)
    for key, value in re.findall(r"`([a-z_]+(?:\.\w+)+): ([^`]+)`", text):
        assert key in dict(keys_of(Settings)), key
        document: Any = yaml.safe_load(value)
        for name in reversed(key.split(".")):
            document = {name: document}
        faults = [  # the rest of the section is not in the sentence
            error.message
            for error in Draft202012Validator(SCHEMA).iter_errors(document)
            if "required" not in {error.validator, *(one.validator for one in error.context or ())}
        ]
        assert faults == [], (key, value)


def test_the_readme_has_a_configuration_of_ten_lines() -> None:
    (text,) = blocks(README.read_text(), "yaml")
    settings = parse(text, Path("dicomnode.yaml"))
    assert len(text.splitlines()) == 10
    assert settings.rules[0].destinations == ("pacs",)
    assert settings.peers["CT1"].accept


# Configuration


def keys_of(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key of a settings model with its default, as the page writes them."""
    for name, annotation, default in _fields(kind):
        inner, suffix = _inner(annotation)
        if inner is None:
            yield prefix + name, _stated(default)
        else:
            yield from keys_of(inner, f"{prefix}{name}{suffix}.")


REQUIRED, BY_HOST = object(), object()


def _fields(kind: Any) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            missing = field.default is dataclasses.MISSING
            yield field.name, hints[field.name], REQUIRED if missing else field.default
        return
    for name, info in kind.model_fields.items():
        default = REQUIRED if info.is_required() else info.default
        yield name, info.annotation, BY_HOST if info.default_factory is not None else default


def _inner(annotation: Any) -> tuple[Any, str]:
    """Return the section that an annotation holds, if any, and how a key goes into it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _inner(arguments[0])
    if origin is dict and _inner(arguments[1])[0] is not None:
        return arguments[1], ".NAME"
    if origin is tuple and _inner(arguments[0])[0] is not None:
        return arguments[0], "[]"
    if origin is types.UnionType and type(None) in arguments:
        return _inner(arguments[0])
    if origin in (None, types.NoneType) and isinstance(annotation, type):
        section = issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
        return (annotation, "") if section else (None, "")
    return None, ""


def _stated(default: Any) -> str:
    if default is REQUIRED:
        return "required"
    if default is BY_HOST:
        return "the host's name"
    if default is None:
        return "not set"
    value = list(default) if isinstance(default, tuple) else default
    text = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
    return f"`{text}`"


def test_every_key_is_documented_with_its_default() -> None:
    documented = {
        row[0].strip("`"): row[2] for row in rows(CONFIGURATION) if "." in row[0] and len(row) == 4
    }
    assert documented == dict(keys_of(Settings))


def test_the_keys_of_a_model_card_are_documented() -> None:
    section = CONFIGURATION.split("## Model cards")[1]
    named = {key for row in rows(section) for key in re.findall(r"`(\w+)`", row[0])}
    required = {name for name, field in CardDocument.model_fields.items() if field.is_required()}
    assert required <= named <= set(CardDocument.model_fields)


# Codes

CODE = re.compile(r"[A-Z][A-Z0-9]{3,}(_[A-Z0-9]+)*|[A-Z]{2,3}(_[A-Z0-9]+)+")
NO_CODES = {
    "CONFIG",  # how the help names an argument
    "DICOMNODE",
    "DICOMNODE_CONFIG",
    "DICOMNODE_LIFELINE",
    "DICOMNODE_LOG_FORMAT",
    "DICOMNODE_ROLES",
    "DICOMNODE_WEIGHTS",
    "NAME",  # the same
    "NOTIFY_SOCKET",
    "IMAGE",  # values of Query/Retrieve Level
    "SERIES",
    "STUDY",
    "BOTH",  # a value of Quality Control Image
    "GET",  # how a study is fetched; a method of HTTP
    "MOVE",
    "POST",  # a method of HTTP
    "DENY",  # values of its headers
    "PEER",  # how the help names an argument
    "RTSTRUCT",  # a value of Modality
    "HIGH",  # a value of Requested Procedure Priority
    "LOCALIZER",  # a value of Image Type
    "AUTOCOMMIT",  # of the database driver
    "RELEASED",  # how a good association ends
    "STAT",  # as HIGH
    "STATE_DIRECTORY",
}
FULL_OF_WORDS = {"images.py", "kernels.py", "maps.py", "rejection_note.py"}
"""What they compare is DICOM's and the manufacturers'."""
COMPOSED = {"ASSOCIATION_ABORTED", "STATUS_xxxx", "HTTP_xxx"} | {
    f"REJECTED_{code}" for code in REJECTION_CODES
}
"""Codes that the code puts together from two parts."""


def codes_in_the_code() -> set[str]:
    """Return every text that looks like a code.

    Of results only what they refuse, of inference only what it logs: both have codes of the field.
    """
    found: set[str] = set()
    for package in ("dicomnode", "inference"):
        for path in sorted((ROOT / package).rglob("*.py")):
            part = path.relative_to(ROOT / package).parts[0]
            if part in ("demo", "training") or "migrations" in path.parts:
                continue
            if path.name in FULL_OF_WORDS:
                continue
            called = {"results": "Refusal"}.get(part, "log" if package == "inference" else None)
            for node in ast.walk(ast.parse(path.read_text())):
                values = [node] if called is None else _first_argument(node, called)
                found |= {
                    value.value
                    for value in values
                    if isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                    and CODE.fullmatch(value.value)
                }
    return found - NO_CODES


def _first_argument(node: ast.AST, called: str) -> list[ast.expr]:
    """Return the first argument of a call of `called` or of one of its methods, else nothing."""
    if not isinstance(node, ast.Call):
        return []
    function = node.func.value if isinstance(node.func, ast.Attribute) else node.func
    return node.args[:1] if isinstance(function, ast.Name) and function.id == called else []


def test_every_code_is_explained() -> None:
    explained = set(re.findall(r"`([A-Z][A-Za-z0-9_]+)`", OPERATING))
    assert codes_in_the_code() - explained == set()
    assert explained >= COMPOSED


def test_no_code_is_explained_that_does_not_occur() -> None:
    heads = {code for row in rows(OPERATING) for code in re.findall(r"`([A-Z]\w+)`", row[0])}
    assert heads - codes_in_the_code() - COMPOSED == set()


def test_every_reason_for_a_refusal_has_its_row() -> None:
    table = OPERATING.split("Reasons why a series is refused")[1].split("\n## ")[0]
    assert {row[0].strip("`") for row in rows(table)} - {"code"} >= set(REASONS)


# Architecture


def test_the_lives_are_those_of_the_code() -> None:
    written = {
        (of, step, start, end)
        for of, step, start, end in (row for row in rows(ARCHITECTURE) if len(row) == 4)
        if of in LIVES
    }
    assert written == {
        (of, name, ", ".join(sorted(step.sources)), step.target)
        for of, life in LIVES.items()
        for name, step in life.items()
    }


def test_every_table_is_described() -> None:
    section = ARCHITECTURE.split("## Tables")[1].split("\n## ")[0]
    assert {row[0].strip("`") for row in rows(section)} - {"table"} == set(metadata.tables)


def test_the_import_contracts_are_those_of_the_project() -> None:
    section = ARCHITECTURE.split("## Who may import whom")[1].split("\n## ")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = [item["name"] for item in project["tool"]["importlinter"]["contracts"]]
    assert re.findall(r"^- (.+)$", section, re.MULTILINE) == contracts


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", PAGES["docs/adr/README.md"].read_text())
    assert listed == sorted(path.name for path in (ROOT / "docs/adr").glob("0*.md"))
