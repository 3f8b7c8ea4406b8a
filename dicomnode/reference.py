"""The reference case of a commissioning: the whole way from DICOM files to labels, compared."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dicomnode import agreement
from dicomnode.commissioning import Agreement, mean_dice
from dicomnode.domain.plans import ModelOptions, Plan
from dicomnode.errors import DicomnodeError
from dicomnode.imaging import read_scan
from dicomnode.offline import read_folder
from dicomnode.pipeline import Analyzer
from inference.card import ModelCard, sha256_of


def run_reference(
    card: ModelCard,
    model_folders: tuple[Path, ...],
    folder: Path,
    labels: Path,
    *,
    minimum: float,
    device: str,
    exact: bool,
) -> Agreement:
    """Analyse a series as the node would, and compare the labels with the reference's.

    Args:
        card: of an installed model.
        model_folders: folders with cards, for the analysis.
        folder: DICOM files of one CT series.
        labels: the reference; see `dicomnode.agreement`.
        minimum: mean Dice that is asked for; recorded.
        device: `auto`, `cpu` or `cuda:N`.
        exact: run as rules with `mode: exact` do.

    Raises:
        Refusal: the series cannot be analysed.
        WeightsError: the model is not installed.
        DicomnodeError: the reference does not fit the series or the model.
    """
    if card.weights is None or not folder.is_dir() or not labels.is_file():
        raise DicomnodeError(f"expected a folder {folder} and a file {labels}")
    series = read_folder(folder)
    if len(series) != 1:
        raise DicomnodeError(f"{folder}: expected one series, found {len(series)}")
    (files,) = series.values()
    scan = read_scan(files)
    reference = agreement.read_labels(labels, scan)
    options = ModelOptions(mode="exact" if exact else "fast")
    plan = Plan(
        job_id="commissioning",
        model_id=card.id,
        analysed_at=datetime.now(UTC),
        model_folders=tuple(str(path) for path in model_folders),
        weights_folder=str(card.weights.parent),
        commissioned_only=False,
        device=device,
        options=options,
    )
    analysis = Analyzer()(files, plan)
    with np.load(io.BytesIO(analysis.label_map), allow_pickle=False) as stored:
        found = stored["labels"]
    structures = agreement.compare(found, reference, card)
    if not any(structure.reference_voxels for structure in structures):
        raise DicomnodeError(f"{labels}: the reference has no structure")
    return Agreement(
        source_digest=scan.digest,
        reference_sha256=sha256_of(labels),
        device=device,
        mode=options.mode,
        minimum=minimum,
        mean_dice=mean_dice(structures),
        structures=structures,
    )
