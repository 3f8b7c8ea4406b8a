"""What the results say of the model that made them, and the numbers they report.

Results know a model only by these records: the model itself stays on the other side of the
pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Identity of the model."""

    id: str
    title: str
    version: str
    weights_digest: str
    """sha256 over the weights' files, hexadecimal."""
    demonstration: bool
    """For demonstration only, never for patients: every result says DEMO."""
    code_table: str
    """Name of the table in `codes/` that gives every label its codes."""
    structures: Mapping[int, str]
    """Label to the model's own name of it."""


class Measured(Protocol):
    """The numbers of one label."""

    @property
    def label(self) -> int:
        """The model's integer."""

    @property
    def volume_ml(self) -> float:
        """Of all voxels with the label, mL."""

    @property
    def mean(self) -> float | None:
        """Mean of the measured voxels, HU of CT or signal of MR; None where there is none."""

    @property
    def sd(self) -> float | None:
        """Standard deviation of the measured voxels; None where there is none."""

    @property
    def median(self) -> float | None:
        """Median of the measured voxels; None where there is none."""

    @property
    def touches_border(self) -> bool:
        """The field of view cuts the structure: its volume is only a part of the whole."""
