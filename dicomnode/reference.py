"""The reference case of a commissioning: the whole way from DICOM files to labels, compared.

And whether 16-bit floats, which are quicker, move too many labels of this model.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dicomnode import agreement
from dicomnode.commissioning import HALF_FROM_ML, Agreement, HalfAgreement, mean_dice
from dicomnode.domain.plans import ModelOptions, Plan
from dicomnode.errors import DicomnodeError
from dicomnode.imaging import read_scan
from dicomnode.offline import read_folder
from dicomnode.pipeline import Analyzer, find_labels, no_progress
from dicomnode.scan import Scan
from inference.card import ModelCard, sha256_of
from inference.measuring import measure
from inference.nnunet import NnunetPredictor
from inference.pipeline import Options


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
    scan = read_scan(files, modality=card.modality)
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
    predictor = NnunetPredictor(card, device)
    analysis = Analyzer(lambda *_: predictor)(files, plan)
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
        half=None if exact else compare_half(scan, card, predictor),
    )


def compare_half(scan: Scan, card: ModelCard, predictor: NnunetPredictor) -> HalfAgreement | None:
    """Return how the labels in 16-bit floats agree with those in single precision.

    None where the device gains nothing by 16-bit floats.
    """
    if not predictor.has_half:
        return None
    kind = predictor.device.type
    single, half = (
        find_labels(scan, card, predictor, no_progress, Options(half_on=frozenset(kinds)))
        for kinds in ((), (kind,))
    )
    millilitres = {
        item.label: item.volume_ml
        for item in measure(
            scan.volume, single, scan.voxel_volumes_mm3, card.structures, scan.valid
        )
    }
    dice = [
        item.dice
        for item in agreement.compare(half, single, card)
        if millilitres.get(item.label, 0.0) >= HALF_FROM_ML
    ]
    return HalfAgreement(
        device=kind,
        differing=float(np.mean(half != single)),
        least_dice=min(dice, default=1.0),
    )
