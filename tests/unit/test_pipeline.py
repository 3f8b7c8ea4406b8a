"""The one step from files to results: stages, label map, warm models."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from analysis_kit import ConstantPredictor, model_card, plan

from dicomnode import pipeline
from dicomnode.demo.series import SeriesOptions, write_series
from dicomnode.domain.content import ContentPolicy
from dicomnode.domain.economy import economise
from dicomnode.domain.plans import Analysis, ModelOptions, Plan
from dicomnode.domain.quality import QualityPolicy
from dicomnode.errors import Refusal
from dicomnode.pipeline import Analyzer, analyze
from inference.card import Requirements
from inference.catalog import Catalog, ModelCard

HU = np.full((10, 12, 8), -1000, np.int16)
HU[2:8, 2:9] = 50
FILES = write_series(HU, np.diag([-2.0, -2.0, 3.0, 1.0]))
BOX = {5: (slice(2, 9), slice(3, 9), slice(4, 9))}


def test_the_label_map_is_kept_with_what_it_was_made_from() -> None:
    analysis = analyze(FILES, plan(), predictor=ConstantPredictor(BOX), card=model_card())
    with np.load(BytesIO(analysis.label_map), allow_pickle=False) as arrays:
        assert arrays["labels"].dtype == np.uint8
        assert arrays["labels"].shape == (8, 12, 10)
        assert set(np.unique(arrays["labels"])) == {0, 5}
        assert len(arrays["sop_instance_uids"]) == 8
        assert len(str(arrays["source_digest"])) == 64
    assert len(analysis.label_map_digest) == 64
    assert [item.kind for item in analysis.results] == ["seg", "sr"]
    assert not analysis.demonstration


def test_a_second_run_gives_the_same_bytes() -> None:
    first, again = (
        analyze(files, plan(), predictor=ConstantPredictor(BOX), card=model_card())
        for files in (FILES, FILES[::-1])
    )
    assert first.label_map == again.label_map
    assert first.label_map_digest == again.label_map_digest
    assert [item.data for item in first.results] == [item.data for item in again.results]


UNSCALED = write_series(
    HU, np.diag([-2.0, -2.0, 3.0, 1.0]), SeriesOptions(extra={"RescaleIntercept": "0"})
)


def test_values_that_are_no_hounsfield_units_are_refused_before_the_model_runs() -> None:
    with pytest.raises(Refusal) as caught:
        analyze(UNSCALED, plan(), card=model_card())
    assert caught.value.code == "VALUES_NOT_HU"
    assert "No value is below 0 HU" in caught.value.detail


@pytest.mark.parametrize("action", ["note", "hold"])
def test_by_configuration_they_are_analysed_and_said(action: Any) -> None:
    lenient = plan(content=ContentPolicy(values_not_hu=action))
    analysis = analyze(UNSCALED, lenient, predictor=ConstantPredictor(BOX), card=model_card())
    (seen,) = (one for one in analysis.coded if one.code == "VALUES_NOT_HU")
    assert (seen.code in analysis.held) == (action == "hold")
    assert analysis.findings[0] == seen.sentence
    report = pydicom.dcmread(BytesIO(analysis.results[-1].data))
    texts = [str(item.get("TextValue")) for item in report.ContentSequence[-1].ContentSequence]
    assert seen.sentence in texts


MIRRORED = {
    5: (slice(2, 7), slice(2, 9), slice(1, 5)),  # the liver on the patient's left
    1: (slice(2, 7), slice(2, 9), slice(6, 9)),  # the spleen on the right
}


@pytest.mark.parametrize("action", ["note", "hold", "refuse"])
def test_a_mirrored_situs_is_noted_held_or_refused_by_configuration(action: Any) -> None:
    # 15 mm voxels: large enough for a liver, so that there is something to say.
    files = write_series(HU, np.diag([-30.0, -30.0, 30.0, 1.0]))
    given = plan(quality=QualityPolicy(situs_mirrored=action))
    card = model_card((30.0, 30.0, 30.0))

    def run() -> Analysis:
        return analyze(files, given, predictor=ConstantPredictor(MIRRORED), card=card)

    if action == "refuse":
        with pytest.raises(Refusal) as caught:
            run()
        assert caught.value.code == "SITUS_MIRRORED"
        return
    analysis = run()
    (seen,) = (one for one in analysis.coded if one.code == "SITUS_MIRRORED")
    assert seen.structures == ("liver", "spleen")
    assert ("SITUS_MIRRORED" in analysis.held) == (action == "hold")
    assert analysis.findings[0] == seen.sentence


@pytest.mark.parametrize("action", ["note", "hold"])
def test_what_was_done_with_less_is_said_and_may_be_held(action: Any) -> None:
    less = economise(
        ["OUT_OF_MEMORY"], model_id="test", threads=2, processors=2, smaller_models={}
    ).finding()
    given = plan(thrifty=True, economy=less, quality=QualityPolicy(smaller_plan=action))
    analysis = analyze(FILES, given, predictor=ConstantPredictor(BOX), card=model_card())
    whole = analyze(FILES, plan(), predictor=ConstantPredictor(BOX), card=model_card())
    assert less in analysis.coded
    assert ("SMALLER_PLAN" in analysis.held) == (action == "hold")
    assert "SMALLER_PLAN" not in [one.code for one in whole.coded]
    report = pydicom.dcmread(BytesIO(analysis.results[-1].data))
    texts = [str(item.get("TextValue")) for item in report.ContentSequence[-1].ContentSequence]
    assert less.sentence in texts
    seg, sr = (
        [one.results[index].sop_instance_uid for one in (analysis, whole)] for index in (0, -1)
    )
    assert seg[0] == seg[1]  # the same labels are the same object
    assert sr[0] != sr[1]


def test_nothing_is_looked_for_that_was_not_asked_for() -> None:
    given = plan(options=ModelOptions(structures=("liver",)))
    box = {5: (slice(2, 5), slice(3, 6), slice(5, 8))}
    analysis = analyze(FILES, given, predictor=ConstantPredictor(box), card=model_card())
    assert not any("MISSING" in one.code for one in analysis.coded)


def test_progress_and_timings_name_the_stages_in_order() -> None:
    seen: list[str] = []

    def progress(stage: str, fraction: float) -> None:
        assert 0 <= fraction <= 1
        if stage not in seen:
            seen.append(stage)

    analysis = analyze(FILES, plan(), progress, ConstantPredictor(BOX), model_card())
    stages = ["decode", "check", "zoom_in", "zoom_back", "measure", "encode"]
    assert [stage for stage in seen if stage != "predict"] == stages
    assert set(stages) <= set(analysis.timings)
    assert all(seconds >= 0 for seconds in analysis.timings.values())


def test_what_the_progress_raises_ends_the_analysis() -> None:
    def stop(stage: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(FILES, plan(), stop, ConstantPredictor(BOX), model_card())


def test_findings_and_the_demonstration_mark_reach_the_analysis() -> None:
    files = write_series(
        HU, np.eye(4), SeriesOptions(extra={"PatientSex": None, "ContrastBolusAgent": "X"})
    )
    analysis = analyze(
        [*files, files[0]],
        plan(),
        predictor=ConstantPredictor(),
        card=model_card(demonstration=True),
    )
    assert analysis.demonstration
    assert analysis.findings == (
        "The model found none of its structures in these images.",
        "The headers say that a phantom was scanned, not a patient.",
        "1 repeated instances were ignored.",
    )
    assert analysis.held == ("NOTHING_FOUND",)
    assert [item.kind for item in analysis.results] == ["sr"], "nothing was found"


def test_a_refusal_comes_before_the_model_runs() -> None:
    class Never:
        def predict(self, image: object, *_: object) -> None:
            raise AssertionError

    with pytest.raises(Refusal):
        analyze(FILES[:2], plan(), predictor=Never(), card=model_card())  # type: ignore[arg-type]


def test_models_are_loaded_once_and_stay_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    card = model_card()
    monkeypatch.setattr(pipeline, "load_catalog", lambda *_: Catalog(cards={"test-model": card}))
    loaded: list[tuple[str, str, int | None]] = []

    def load(card: ModelCard, device: str, threads: int | None) -> ConstantPredictor:
        loaded.append((card.id, device, threads))
        return ConstantPredictor(BOX)

    analyzer = Analyzer(load)
    given: Plan = plan(commissioned_only=False)
    first = analyzer(FILES, given)
    assert analyzer(FILES, given).results[0].data == first.results[0].data
    assert loaded == [("test-model", "cpu", None)]
    analyzer(FILES, replace(given, threads=1))
    assert loaded[1:] == [("test-model", "cpu", 1)]


def test_the_plans_folders_are_where_models_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[list[Path], Path | None]] = []

    def load_catalog(folders: list[Path], weights: Path | None) -> Catalog:
        asked.append((folders, weights))
        return Catalog(cards={"test-model": model_card()})

    monkeypatch.setattr(pipeline, "load_catalog", load_catalog)
    given: Plan = plan(model_folders=(str(tmp_path),), weights_folder="/w")
    assert pipeline.find_card(given).id == "test-model"
    assert asked == [([tmp_path], Path("/w"))]


def test_a_model_that_no_device_here_satisfies_is_refused_before_it_is_loaded() -> None:
    card = replace(model_card(), requires=Requirements(gpu_memory_gib=80))
    with pytest.raises(Refusal) as caught:
        analyze(FILES, plan(), card=card)
    assert caught.value.code == "DEVICE_TOO_SMALL"
    assert "a GPU with 80 GiB, and this device is the CPU" in caught.value.detail
