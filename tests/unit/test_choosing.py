"""Which series of a study are analysed, and what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from studies import CORONAL, SAGITTAL, dose_screen, facts_of, members, series

from dicomnode.domain import choosing
from dicomnode.domain.choosing import (
    BETTER_CHOSEN,
    CHOSEN,
    CHOSEN_ALL,
    ChoosingPolicy,
    Standing,
    Verdict,
    choose_series,
)
from dicomnode.domain.describing import summary
from dicomnode.domain.reasons import REASONS
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Condition, Rule

POLICY = ChoosingPolicy()
MR = "1.2.840.10008.5.1.4.1.1.4"


def rule(name: str = "all", model: str | None = "demo", choose: Any = "one", **when: Any) -> Rule:
    return Rule(name=name, model=model, choose=choose, when=Condition(**when))


def decide(
    study: Sequence[SeriesFacts], *rules: Rule, policy: ChoosingPolicy = POLICY, **more: Any
) -> dict[str, Verdict]:
    return choose_series(rules or (rule(),), policy, study, **more)


def codes(study: Sequence[SeriesFacts], *rules: Rule, **more: Any) -> dict[str, str]:
    return {uid: verdict.code for uid, verdict in decide(study, *rules, **more).items()}


def test_of_a_whole_study_the_right_one() -> None:
    study = (
        series("topo", 1, slices=2, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        series("tracking", 2, slices=30, spacing=0.0),
        series("thick soft", 3, slices=60, spacing=5.0, slice_thickness_mm=5.0),
        series("thin bone", 4, kernel=("Br64d",)),
        series("thin soft", 5),
        series("coronal", 6, orientation=CORONAL, image_type=("DERIVED", "SECONDARY", "MPR")),
        series("mip", 7, image_type=("DERIVED", "SECONDARY", "AXIAL", "MIP")),
        series("iodine", 8, rescale_type="MGML", description="Iodine"),
        series("70 keV", 9, description="Mono+ 70 keV"),
        dose_screen("dose", 999),
    )
    found = decide(study)
    assert {uid: verdict.code for uid, verdict in found.items()} == {
        "topo": "NOT_A_VOLUME",
        "tracking": "TOO_FEW_SLICES",
        "thick soft": BETTER_CHOSEN,
        "thin bone": BETTER_CHOSEN,
        "thin soft": CHOSEN,
        "coronal": "NOT_AXIAL",
        "mip": "DERIVED_MAP",
        "iodine": "DERIVED_MAP",
        "70 keV": "NO_RULE",
        "dose": "NOT_CT",
    }
    assert [uid for uid, verdict in found.items() if verdict.is_chosen] == ["thin soft"]
    assert "the best of 3 that fit" in found["thin soft"].why
    assert "is thinner (1 mm, this one 5 mm)" in found["thick soft"].why
    assert "softer kernel (Br40d, soft, this one Br64d, sharp)" in found["thin bone"].why
    assert "virtual monoenergetic" in found["70 keV"].why
    assert "Rescale Type is MGML" in found["iodine"].why


@pytest.mark.parametrize(
    ("better", "worse", "says"),
    [
        ({}, {"slices": 200}, "covers 300 mm, this one 200 mm"),
        ({"kernel": ("B70f",)}, {"slices": 100, "spacing": 3.0}, "is thinner (1 mm"),
        ({}, {"kernel": ("B70f",), "slice_thickness_mm": 0.6}, "softer kernel"),
        ({}, {"kernel": ()}, "softer kernel (Br40d, soft, this one not stated)"),
        ({"kernel": ()}, {"kernel": ("LUNG",)}, "softer kernel"),
        ({"slice_thickness_mm": 1.5}, {"image_type": ("DERIVED", "SECONDARY", "MPR")}, "original"),
        ({"slice_thickness_mm": 1.0}, {"slice_thickness_mm": 1.5}, "is thinner (1 mm, this one"),
        ({}, {"slices": 290}, "covers 300 mm, this one 290 mm"),
        ({"slices": 250, "slice_thickness_mm": 1.0}, {"slice_thickness_mm": 5.0}, "is thinner"),
    ],
)  # fmt: skip
def test_what_decides_between_two(better: Any, worse: Any, says: str) -> None:
    found = decide((series("worse", 1, **worse), series("better", 2, **better)))
    assert found["better"].code == CHOSEN
    assert found["worse"].code == BETTER_CHOSEN
    assert says in found["worse"].why


def test_a_series_without_gaps_and_mixed_phases_first() -> None:
    gap = [*members(150), *members(140, start=160)]
    phases = [*members(300), *members(300, cardiac_phase="75")]
    study = (facts_of(gap, "gap", 1), facts_of(phases, "phases", 2), series("whole", 3))
    found = decide(study)
    assert found["whole"].code == CHOSEN
    assert "has no gaps" in found["gap"].why
    assert "one image at each place" in found["phases"].why


def test_alike_to_the_last_the_lower_number_then_the_lower_uid() -> None:
    assert codes((series("b", 7), series("a", 8))) == {"b": CHOSEN, "a": BETTER_CHOSEN}
    assert codes((series("b"), series("a"))) == {"a": CHOSEN, "b": BETTER_CHOSEN}


def test_each_frame_of_reference_has_its_own_choice() -> None:
    study = (
        series("1"),
        series("2", kernel=("B70f",)),
        series("3", frame_of_reference_uid="1.8", kernel=("B70f",)),
    )
    assert codes(study) == {"1": CHOSEN, "2": BETTER_CHOSEN, "3": CHOSEN}


def test_each_model_has_its_own_choice() -> None:
    study = (series("1"), series("2", kernel=("B70f",)), series("3", kernel=("Bl57d",)))
    rules = (rule("lung", "lungs", kernel=("B70*", "Bl*")), rule())
    found = decide(study, *rules)
    assert {uid: verdict.choice.model for uid, verdict in found.items()} == {
        "1": "demo",
        "2": "lungs",
        "3": None,
    }


def test_the_earlier_rule_first() -> None:
    study = (series("thick", 1, slices=60, spacing=5.0), series("thin", 2))
    rules = (rule("thick", min_slice_thickness_mm=1.0, max_instances=100), rule("any"))
    found = decide(study, *rules)
    assert found["thick"].code == CHOSEN
    assert "earlier rule" in found["thin"].why


def test_a_rule_may_want_all() -> None:
    study = (series("1"), series("2", kernel=("B70f",)), series("3", orientation=CORONAL))
    assert codes(study, rule(choose="all")) == {
        "1": CHOSEN_ALL,
        "2": CHOSEN_ALL,
        "3": "NOT_AXIAL",
    }


def test_what_only_the_loser_covers_is_said() -> None:
    study = (series("abdomen", 2, start=250.0, slices=200), series("thorax", 1, slices=300))
    found = decide(study, policy=POLICY)
    assert found["thorax"].code == CHOSEN
    assert "150 mm are covered by this one alone" in found["abdomen"].why


# What a series must be


def test_orientation() -> None:
    tilted = (1.0, 0.0, 0.0, 0.0, 0.866, -0.5)  # a gantry at 30 degrees
    oblique = (1.0, 0.0, 0.0, 0.0, 0.707, -0.707)
    study = (
        series("tilted", orientation=tilted),
        series("oblique", orientation=oblique),
        series("sagittal", orientation=SAGITTAL),
    )
    found = decide(study)
    assert [found[uid].code for uid in ("tilted", "oblique", "sagittal")] == [
        CHOSEN,
        "NOT_AXIAL",
        "NOT_AXIAL",
    ]
    assert "oblique, 45 degrees off axial" in found["oblique"].why
    wanted = codes(study, rule(orientation=("sagittal",)))
    assert (wanted["sagittal"], wanted["tilted"]) == (CHOSEN, "NO_RULE")


def test_size_counts_in_slices_of_512() -> None:
    assert codes([series("1", slices=2000, spacing=0.5)]) == {"1": CHOSEN}
    assert codes([series("1", slices=2501, spacing=0.5)]) == {"1": "TOO_MANY_SLICES"}
    large = series("1", slices=700, spacing=0.5, rows=1024, columns=1024)
    found = decide([large])["1"]
    assert found.code == "TOO_MANY_SLICES"
    assert "700 slices of 1024 x 1024 pixels" in found.why


@pytest.mark.parametrize(
    ("stack", "code"),
    [
        ({"slices": 3}, "TOO_FEW_SLICES"),
        ({"slices": 12}, "TOO_LITTLE_COVERAGE"),
        ({"frame_of_reference_uid": ""}, "NO_FRAME_OF_REFERENCE"),
        ({"orientation": ()}, "NO_POSITION"),
        ({"pixel_spacing": ()}, "NO_POSITION"),
        ({"rescaled": False}, "NOT_HU"),
        ({"photometric": "RGB"}, "DERIVED_MAP"),
    ],
)
def test_what_does_not_fit(stack: dict[str, Any], code: str) -> None:
    assert codes([series("1", **stack)]) == {"1": code}


def test_no_rule_makes_a_map_analysed() -> None:
    study = [series("1", rescale_type="Z_EFF"), series("2", description="VNC")]
    for choose in ("one", "all"):
        for wanted in ({}, {"monoenergetic": True}, {"description": ("*",)}):
            found = decide(study, rule(choose=choose, **wanted))
            assert not any(verdict.is_chosen for verdict in found.values())


def test_monoenergetic_by_rule_alone_and_the_energy_is_told() -> None:
    study = [
        series("40", 1, description="Mono 40 keV"),
        series("75", 2, description="Mono 75 keV"),
        series("ct", 3),
    ]
    assert codes(study) == {"40": "NO_RULE", "75": "NO_RULE", "ct": CHOSEN}
    found = decide(study, rule(monoenergetic=True))
    assert {uid: verdict.code for uid, verdict in found.items()} == {
        "40": BETTER_CHOSEN,
        "75": CHOSEN,
        "ct": "NO_RULE",
    }
    assert "monoenergetic at 75 keV" in found["75"].why
    assert found["75"].choice.monoenergetic
    assert summary(study[1])["kev"] == 75.0
    assert codes(study, rule(min_kev=30.0, max_kev=50.0))["40"] == CHOSEN
    unknown = [series("?", description="VMI")]
    assert codes(unknown, rule(min_kev=30.0)) == {"?": "NO_RULE"}
    assert codes(unknown, rule(monoenergetic=True)) == {"?": CHOSEN}


def mr(uid: str, **image: Any) -> SeriesFacts:
    """Return the facts of an MR series, which has no rescaling."""
    plain: dict[str, Any] = {"rescaled": False, "rescale_type": "", "kvp": None, "kernel": ()}
    images = members(60, 3.0, **(plain | image))
    return facts_of([replace(one, sop_class_uid=MR) for one in images], uid)


def test_mr_is_chosen_by_a_rule_that_names_it() -> None:
    study = [mr("t1"), series("ct", frame_of_reference_uid="2.9")]
    assert codes(study) == {"t1": "NO_RULE", "ct": CHOSEN}
    both = (rule("ct", modality=("CT",)), rule("mr", "brain", modality=("MR",)))
    study = [replace(study[0], modality="MR"), study[1]]
    assert codes(study, *both) == {"t1": CHOSEN, "ct": CHOSEN}
    assert decide(study, *both)["t1"].choice.model == "brain"


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ({"image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, "DERIVED_MAP"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, "DERIVED_MAP"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER", "M")}, "NOT_A_VOLUME"),
        ({"image_type": ("DERIVED", "PRIMARY", "WATER")}, CHOSEN),
        ({"description": "t1 75 keV"}, CHOSEN),
        ({"orientation": SAGITTAL}, "NOT_AXIAL"),
    ],
)
def test_of_mr_too_maps_are_no_images(image: dict[str, Any], code: str) -> None:
    study = [replace(mr("1", **image), modality="MR")]
    assert codes(study, rule(modality=("MR",))) == {"1": code}


def test_a_localizer_within_a_series_is_left_out_and_a_mixed_one_is_refused() -> None:
    scout = members(1, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"), orientation=CORONAL)
    with_scout = facts_of([*scout, *members(300)], "1")
    assert (with_scout.slices, with_scout.left_out) == (300, 1)
    assert codes([with_scout]) == {"1": CHOSEN}
    maps = members(300, rescale_type="MGML")
    assert codes([facts_of([*maps, *members(300)], "1")]) == {"1": "MIXED_CONTENT"}


def test_multi_frame_images_count_by_their_frames() -> None:
    one = members(1, frames=200, span=(0.0, 398.0, 200.0))
    found = facts_of(one, "1")
    assert (found.slices, found.places, found.spacing_mm, found.last_mm) == (200, 200, 2.0, 398.0)
    assert codes([found]) == {"1": CHOSEN}
    assert codes([found], rule(min_instances=200)) == {"1": CHOSEN}
    assert codes([found], rule(min_instances=201)) == {"1": "NO_RULE"}


# What was before


def test_what_waits_gives_way_and_what_is_done_stays() -> None:
    study = (series("thick", 1, slices=60, spacing=5.0), series("thin", 2))
    for standing in (Standing.UNDER_WAY, Standing.REFUSED):
        found = codes(study, before={("thick", "demo"): standing})
        assert found["thin"] == CHOSEN
    found = decide(study, before={("thick", "demo"): Standing.DONE})
    assert found["thick"].code == CHOSEN
    assert found["thin"].code == "CAME_TOO_LATE"
    assert not found["thin"].is_chosen
    worse = decide(study, before={("thin", "demo"): Standing.DONE})
    assert (worse["thin"].code, worse["thick"].code) == (CHOSEN, BETTER_CHOSEN)


def test_done_stays_done_even_if_it_would_not_fit_any_more() -> None:
    study = (series("large", 1, slices=3000), series("thin", 2))
    found = codes(study, before={("large", "demo"): Standing.DONE})
    assert found == {"large": "TOO_MANY_SLICES", "thin": BETTER_CHOSEN}


def test_what_the_analysis_refused_gives_its_turn_to_the_next() -> None:
    study = (series("1"), series("2", kernel=("B70f",)))
    found = decide(study, before={("1", "demo"): Standing.REFUSED})
    assert (found["1"].code, found["2"].code) == ("ANALYSIS_REFUSED", CHOSEN)
    assert not found["1"].is_chosen


def test_a_choice_that_is_not_allowed_is_told() -> None:
    found = decide([series("1")], allowed=lambda choice: replace(choice, model=None, why="too old"))
    assert (found["1"].code, found["1"].why) == ("RULE_SAYS_NO", "too old")


def test_every_code_has_its_meaning() -> None:
    told = {value for name, value in vars(choosing).items() if name.isupper() and name == value}
    assert told == set(choosing.VERDICTS)
    assert not (set(choosing.VERDICTS) & set(REASONS) - {"TOO_FEW_SLICES"})


@pytest.mark.parametrize(
    "wrong",
    [{"max_slices": 3}, {"min_coverage_mm": -1.0}, {"max_tilt_degrees": 46.0}],
)
def test_policies_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ChoosingPolicy(**wrong)
