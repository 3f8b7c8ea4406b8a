"""What `dicomnode check` says of rules and their models."""

from __future__ import annotations

from pathlib import Path

import pytest
from mr_series import write_mr_model

from dicomnode.checks import check_models
from dicomnode.settings import parse


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_mr_model(folder)
    return folder


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("model: tiny-mr, when: {modality: [MR]}", ""),
        ("model: tiny-mr, when: {modality: [CT, mr]}", ""),
        ("model: tiny-mr", "the model takes MR, and when.modality of its rule does not name it"),
        ("model: tiny-mr, when: {modality: [CT]}", "the model takes MR, and when.modality"),
        ("model: demo", ""),
        ("model: demo, when: {modality: [MR]}", "the model takes CT, and when.modality"),
        (
            "model: tiny-mr, when: {modality: [MR]}, options: {body_crop: true}",
            "options.body_crop has no meaning",
        ),
    ],
)
def test_a_rule_has_to_name_what_its_model_takes(
    models: Path, rule: str, fault: str, tmp_path: Path
) -> None:
    text = f"work: {{model_folders: [{models}]}}\nrules: [{{name: a, {rule}}}]\n"
    config = tmp_path / "c.yaml"
    config.write_text(text)
    found = check_models(parse(text, config), config)
    if not fault:
        assert found == []
        return
    (line,) = found
    assert line.startswith(f"{config}:2:19: rules.0.model: ")
    assert fault in line


@pytest.mark.parametrize(
    ("smaller", "fault"),
    [
        ("tiny-mr: tiny-mr", ""),
        ("demo: none", "no model is named 'none'"),
        ("none: demo", "no model is named 'none'"),
        ("demo: total-v2-fast", "total-v2-fast"),
    ],
)
def test_smaller_models_have_to_be_ready(
    models: Path, smaller: str, fault: str, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"work:\n  model_folders: [{models}]\n  smaller_models:\n    {smaller}\n")
    found = check_models(parse(config.read_text(), config), config)
    if not fault:
        assert found == []
        return
    (line,) = found
    assert line.startswith(f"{config}:4:5: work.smaller_models.{smaller.split(':')[0]}: ")
    assert fault in line
