"""Every code with which a series is refused is explained, and no explanation is left over."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import dicomnode
from dicomnode.domain import maps
from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.quality import QualityPolicy
from dicomnode.domain.reasons import REASONS, explain
from dicomnode.domain.sayings import is_said
from dicomnode.imaging import slices, stacks

SOURCE = Path(dicomnode.__file__).parent


def codes_raised() -> set[str]:
    found = {split[1] for split in stacks._SPLITS}
    for policy in (ContentPolicy, QualityPolicy):
        found |= {field.name.upper() for field in fields(policy)}
    found |= {code for code, _ in maps._TABLE}
    folders = [SOURCE / folder for folder in ("imaging", "results")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    for path in (*paths, SOURCE / "pipeline.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refusal":
                code = node.args[0]
                if isinstance(code, ast.Constant):
                    found.add(str(code.value))
    tree = ast.parse(Path(slices.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.endswith("slice_or_reason"):
            found |= {
                constant.value
                for returned in ast.walk(node)
                if isinstance(returned, ast.Return)
                for constant in ast.walk(returned)
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
            }
    return found


def test_every_code_is_explained_and_every_explanation_used() -> None:
    assert codes_raised() == set(REASONS)


def test_explanations_are_sentences() -> None:
    for code, sentence in REASONS.items():
        assert code.isupper()
        assert sentence.endswith(".")
        assert len(sentence) >= 30
        assert explain(code) == sentence
    assert explain("SOMETHING_ELSE") == "SOMETHING_ELSE"


def test_whatever_needs_a_person_has_words() -> None:
    operating = (SOURCE.parent / "docs/operating.md").read_text()
    codes_of_attention = {
        code.strip("`")
        for line in operating.splitlines()
        if line.startswith("| `") and "attention" in line.split(" | ")[1]
        for code in line.split(" | ")[0].strip("| ").split(", ")
    }
    assert len(codes_of_attention) > 20
    assert {code for code in codes_of_attention if not is_said(code)} == set()
