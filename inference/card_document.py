"""The written form of a model card: its keys, their types, and errors that name file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from inference.card import Modality, Scheme

Key = tuple[str | int, ...]
"""Where a value stands in the document: ("parts", 0, "folder")."""

NNUNET_FILES = ("dataset.json", "fold_0/checkpoint_final.pth", "plans.json")
"""What an nnU-Net v2 model folder needs, so what a card has to pin."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+[^\s?#/]$")]
Memory = Annotated[float, Field(gt=0, le=65536)]
RadElement = Annotated[str, StringConstraints(pattern=r"^RDE[0-9]+$")]


class PartDocument(BaseModel):
    """One entry of `parts`: a `folder` beside the card, or an `archive` that is installed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    folder: Text | None = None
    archive: Annotated[str, StringConstraints(pattern=r"^(Task|Dataset)[0-9]{3}_\w+$")] | None = (
        None
    )
    trainer: Name | None = None
    archive_sha256: Sha256 | None = None
    labels: Literal["identity"] | dict[int, int]
    sha256: dict[str, str] = {}

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: object) -> object:
        if value == "identity":
            return value
        expected = "expected `identity` or {part label: model label} for the part labels 1 to n"
        if not isinstance(value, dict) or set(value) != set(range(1, len(value) + 1)) or not value:
            raise ValueError(expected)
        if not all(type(label) is int and 0 <= label <= 255 for label in value.values()):
            raise ValueError(f"{expected}, and model labels from 0 to 255")
        return value

    @field_validator("folder")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        return None if value is None else _inside(value)

    @field_validator("sha256")
    @classmethod
    def _sha256(cls, value: dict[str, str]) -> dict[str, str]:
        for file, digest in value.items():
            _inside(file)
            if not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError(f"{file}: expected 64 hexadecimal digits in lower case")
        missing = [file for file in NNUNET_FILES if file not in value]
        if value and missing:
            raise ValueError(f"expected the hashes of {', '.join(missing)} too")
        return value

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.folder is None) == (self.archive is None):
            raise ValueError("expected either a folder beside the card or an archive to install")
        if (self.trainer is None) != (self.archive is None):
            raise ValueError("expected a trainer with an archive, and only with one")
        if self.archive_sha256 is not None and self.archive is None:
            raise ValueError("expected archive_sha256 with an archive only")
        return self


class RequirementsDocument(BaseModel):
    """The keys of `requires`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gpu_memory_gib: Memory | None = None
    ram_gib: Memory | None = None


class CardDocument(BaseModel):
    """The keys of a card. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    title: Text
    version: Text
    family: Text
    task: Text
    spacing_mm: Annotated[
        list[Annotated[float, Field(gt=0, le=50)]], Field(min_length=3, max_length=3)
    ]
    orientation: Literal["RAS"]
    step_size: Annotated[float, Field(gt=0, le=1)]
    zoom_order: Literal[1, 3]
    aggregation: Literal["softmax", "logits"] = "softmax"
    demonstration: bool
    modality: Modality = "CT"
    normalisation: Scheme = "CT"
    requires: RequirementsDocument = RequirementsDocument()
    code_table: Annotated[
        str, StringConstraints(pattern=r"^(\./)?[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    ]
    licence: Text
    citation: Text
    intended_use: Text
    limits: list[Text]
    figures: dict[str, Any]
    radelement: list[RadElement] = []
    source: Address | None = None
    structures: Name
    parts: Annotated[list[PartDocument], Field(min_length=1)]

    @model_validator(mode="after")
    def _hounsfield_units_are_of_ct(self) -> Self:
        if self.modality != "CT" and self.normalisation == "CT":
            raise ValueError("expected a normalisation other than CT for a model of MR images")
        return self

    @model_validator(mode="after")
    def _archives_have_a_source(self) -> Self:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise ValueError("expected another name for every part")
        if any(part.archive for part in self.parts) and self.source is None:
            raise ValueError("expected a source, the address that the archives stand under")
        return self


def load_yaml(path: Path) -> tuple[Any, dict[Key, int]]:
    """Read a YAML file with the safe loader; also return the line, from 1, of every key.

    Raises:
        OSError: it cannot be read.
        ValueError: not YAML, or a key occurs twice; the text begins with file and line.
    """
    text = path.read_bytes()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Key, int] = {(): 1}
        if node is not None:
            _note_lines(path, node, (), lines)
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ValueError(f"{path}:{line}: {getattr(error, 'problem', None) or error}") from error


def explain(path: Path, error: ValidationError, lines: Mapping[Key, int]) -> str:
    """Return a line `file:line: key: what was expected` for every fault in `error`."""
    return "\n".join(
        f"{path}:{_line(fault['loc'], lines)}: {'.'.join(map(str, fault['loc'])) or 'card'}: "
        f"{_expectation(fault['type'], fault['loc'], fault['msg'])}"
        for fault in error.errors(include_url=False, include_input=False)
    )


def _expectation(kind: str, place: Key, message: str) -> str:
    if kind == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {
            "parts": PartDocument,
            "requires": RequirementsDocument,
        }
        model = sections.get(str(place[0]) if len(place) > 1 else "", CardDocument)
        return f"unknown key; expected one of {', '.join(model.model_fields)}"
    if kind == "missing":
        return "is missing; expected this key"
    return message.removeprefix("Value error, ").replace("Input should be", "expected")


def _line(place: Key, lines: Mapping[Key, int]) -> int:
    while place not in lines:
        place = place[:-1]
    return lines[place]


def _note_lines(path: Path, node: yaml.Node, place: Key, lines: dict[Key, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, _scalar(key))
            if inner in lines:
                raise ValueError(f"{path}:{key.start_mark.line + 1}: {inner[-1]}: occurs twice")
            lines[inner] = key.start_mark.line + 1
            _note_lines(path, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _note_lines(path, value, (*place, index), lines)


def _scalar(node: yaml.Node) -> str | int:
    text = str(node.value)
    return int(text) if text.isdecimal() else text


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or not text:
        raise ValueError(f"{text!r}: expected a relative path without `..`")
    return text
