"""One pure step from the files of a CT series to its results: DICOM in, DICOM out.

No ledger, no network, no disk: what decides the results is in the arguments. DICOM's patient axes
become the model's here and nowhere else.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode import commissioning
from dicomnode.domain.findings import Finding, of_action, once_each, sentences
from dicomnode.domain.plans import Analysis, ModelOptions, Plan
from dicomnode.errors import Refusal
from dicomnode.imaging import Source, read_scan
from dicomnode.imaging.content import check_content
from dicomnode.imaging.regular import regular_grid
from dicomnode.quality import label_findings, subject_findings
from dicomnode.results import Model, encode, prepare
from dicomnode.results.codes import CodeTableError, load_codes
from dicomnode.scan import RAS_FROM_LPS, LabelMap, Scan
from inference import devices
from inference.catalog import CatalogError, ModelCard, load_catalog
from inference.measuring import Measurement, find_edges, measure
from inference.pipeline import DEFAULT, Options, Predictor, segment, wanted_labels

Progress = Callable[[str, float], None]
"""Called with the stage (decode, check, zoom_in, predict, zoom_back, measure, encode) and how much
of it is done, 0 to 1. What it raises ends the analysis."""
Load = Callable[[ModelCard, str, int | None], Predictor]
"""Makes the predictor of a card for a device and a number of threads (None: the library's)."""

_STAGES = {"resample": "zoom_in", "restore": "zoom_back"}
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def no_progress(stage: str, fraction: float) -> None:
    """Ignore the progress."""


def load_predictor(card: ModelCard, device: str, threads: int | None) -> Predictor:
    """Load the networks of `card`.

    Raises:
        Refusal: the device has not the memory that the card requires.
    """
    lacking = devices.check(card.requires, device)
    if lacking:
        raise Refusal("DEVICE_TOO_SMALL", f"The model {card.id} cannot run here: {lacking}.")
    from inference.nnunet import NnunetPredictor  # torch takes seconds to load

    return NnunetPredictor(card, device, threads)


class Analyzer:
    """Analyses series after series, with its models kept loaded."""

    def __init__(self, load: Load = load_predictor) -> None:
        self._load = load
        self._warm: dict[tuple[str, str, str, int | None], Predictor] = {}

    def __call__(
        self, instances: Sequence[Source], plan: Plan, progress: Progress = no_progress
    ) -> Analysis:
        """Analyse one series; see `analyze`."""
        card = find_card(plan)
        check_card(card, commissioned_only=plan.commissioned_only)
        key = (card.id, card.weights_digest(), plan.device, plan.threads)
        if key not in self._warm:
            self._warm[key] = self._load(card, plan.device, plan.threads)
        return analyze(instances, plan, progress, self._warm[key], card)


def find_card(plan: Plan) -> ModelCard:
    """Return the card of the plan's model.

    Raises:
        CatalogError: there is none, or a card cannot be read.
    """
    weights = None if plan.weights_folder is None else Path(plan.weights_folder)
    folders = [Path(folder) for folder in plan.model_folders]
    return load_catalog(folders, weights).card(plan.model_id)


def check_card(card: ModelCard, *, commissioned_only: bool) -> None:
    """Refuse what must not or cannot end well, before minutes are spent on it.

    Raises:
        Refusal: the model is not commissioned on this node.
        CatalogError: it is not installed, or a structure has no codes.
    """
    card.weights_digest()
    try:
        codes = load_codes(card.code_table)
    except CodeTableError as error:
        raise CatalogError(f"model {card.id!r}: {error}") from error
    lost = [structure.name for structure in card.structures if structure.label not in codes]
    if lost:
        raise CatalogError(
            f"model {card.id!r}: the code table {card.code_table!r} lacks {', '.join(lost)}"
        )
    reason = commissioning.why_not(card) if commissioned_only else ""
    if reason:
        raise Refusal("MODEL_NOT_COMMISSIONED", reason)


def analyze(
    instances: Sequence[Source],
    plan: Plan,
    progress: Progress = no_progress,
    predictor: Predictor | None = None,
    card: ModelCard | None = None,
) -> Analysis:
    """Segment a CT series and encode what was found.

    Args:
        instances: whole DICOM files (PS3.10) of one series, in any order: their bytes, or their
            paths, whose bytes then need no memory beside the volume.
        plan: all else that decides the results.
        progress: told about every stage.
        predictor: the loaded model of the plan; loaded here if None.
        card: of the plan's model; looked up if None.

    Raises:
        Refusal: the series cannot be analysed honestly.
        CatalogError: the model cannot be used.
    """
    watch = _Stopwatch(progress)
    if card is None:
        card = find_card(plan)
    watch("decode", 0.0)
    scan = read_scan(
        instances, plan.threads, modality=card.modality, monoenergetic=plan.monoenergetic
    )
    source = prepare(scan)
    watch("decode", 1.0)
    economy = () if plan.economy is None else (plan.economy,)
    before = _refused(plan, (*economy, *check_content(scan), *subject_findings(scan)))
    watch("check", 1.0)
    if predictor is None:
        predictor = load_predictor(card, plan.device, plan.threads)
        watch("load", 1.0)
    options = replace(run_options(plan.options, card), thrifty=plan.thrifty)
    labels = LabelMap(
        labels=find_labels(scan, card, predictor, watch, options),
        source_digest=scan.digest,
    )
    watch("measure", 0.0)
    measurements, after = _measured(scan, labels, card, options)
    coded = once_each((*before, *_refused(plan, after)))
    watch("measure", 1.0)
    findings = sentences(coded, (*scan.findings, *source.findings))
    results = encode(source, labels, describe(card), measurements, plan, findings, coded)
    label_map = pack_label_map(labels, scan)
    watch("encode", 1.0)
    return Analysis(
        job_id=plan.job_id,
        study_uid=str(source.headers[0].StudyInstanceUID),
        series_uid=str(source.headers[0].SeriesInstanceUID),
        results=results,
        label_map=label_map,
        label_map_digest=labels.digest,
        demonstration=card.demonstration,
        findings=findings,
        coded=coded,
        held=tuple(dict.fromkeys(seen.code for seen in of_action(coded, plan, "hold"))),
        timings=watch.seconds,
    )


def _refused(plan: Plan, found: Sequence[Finding]) -> Sequence[Finding]:
    """Return the findings, if the plan lets such a series pass.

    Raises:
        Refusal: it does not.
    """
    for seen in of_action(found, plan, "refuse"):
        raise Refusal(seen.code, seen.sentence)
    return found


def _measured(
    scan: Scan, labels: LabelMap, card: ModelCard, options: Options
) -> tuple[tuple[Measurement, ...], tuple[Finding, ...]]:
    """Return the numbers of every structure, and what the label map says of itself."""
    valid = scan.valid
    edges = find_edges(labels.labels, valid)
    measurements = measure(
        scan.volume, labels.labels, scan.voxel_volumes_mm3, card.structures, valid, edges
    )
    wanted = wanted_labels(card, options)
    names = {item.label: item.name for item in card.structures if item.label in wanted}
    return measurements, tuple(label_findings(scan, labels.labels, names, measurements, edges))


def find_labels(
    scan: Scan, card: ModelCard, predictor: Predictor, progress: Progress, options: Options
) -> NDArray[np.uint8]:
    """Return labels [slice, row, column] on the scan's own slices."""
    if scan.is_regular:
        affine = RAS_FROM_LPS @ scan.affine
        return segment(scan.volume, affine, card, predictor, progress, options)
    grid = regular_grid(scan)
    affine = RAS_FROM_LPS @ grid.affine
    return grid.back(segment(grid.volume, affine, card, predictor, progress, options))


def run_options(wanted: ModelOptions, card: ModelCard) -> Options:
    """Return how the predictor is to run the model.

    Raises:
        Refusal: the rule wants structures that the model does not find, or what MR has not.
    """
    known = {structure.name for structure in card.structures}
    unknown = [name for name in wanted.structures if name not in known]
    if unknown:
        raise Refusal(
            "UNKNOWN_STRUCTURES",
            f"The model {card.id} does not find {', '.join(unknown)}; correct the rule's options.",
        )
    if wanted.body_crop and card.modality != "CT":
        raise Refusal(
            "BODY_CROP_NOT_FOR_MR",
            f"The model {card.id} takes {card.modality}, where no value stands for air.",
        )
    return Options(
        mode=wanted.mode,
        step_size=wanted.step_size,
        structures=wanted.structures,
        body_crop=wanted.body_crop,
        half_on=commissioning.half_on(card, DEFAULT.half_on),
    )


def describe(card: ModelCard) -> Model:
    """Return what the results say of the model."""
    return Model(
        id=card.id,
        title=_plain(card.title),
        version=_plain(card.version),
        weights_digest=card.weights_digest(),
        demonstration=card.demonstration,
        code_table=card.code_table,
        structures={structure.label: structure.name for structure in card.structures},
    )


def _plain(text: str) -> str:
    # Every character set holds ASCII; a backslash would divide the value in two.
    return text.encode("ascii", "replace").decode().replace("\\", "/")


def pack_label_map(labels: LabelMap, scan: Scan) -> bytes:
    """Return NumPy's .npz of `labels`, `sop_instance_uids`, `frame_numbers` and `source_digest`.

    A frame number is 0 where the slice is a single-frame instance.

    Equal label maps give equal bytes. Deflated at level 1: labels shrink to a hundredth anyway.
    """
    arrays = {
        "labels": np.ascontiguousarray(labels.labels),
        "sop_instance_uids": np.array(scan.sop_instance_uids),
        "frame_numbers": np.array([number or 0 for number in scan.frame_numbers], np.int32),
        "source_digest": np.array(labels.source_digest),
    }
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()


class _Stopwatch:
    """Passes the progress on, and adds up the time until each report to the stage it names."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._last = time.perf_counter()

    def __call__(self, stage: str, fraction: float) -> None:
        name = _STAGES.get(stage, stage)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
        self._progress(name, fraction)
