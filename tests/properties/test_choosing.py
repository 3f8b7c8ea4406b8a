"""The chooser: order is irrelevant, one for each Frame of Reference, and no worse one matters."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from studies import CORONAL, series

from dicomnode.domain.choosing import (
    CHOSEN,
    ChoosingPolicy,
    Standing,
    choose_series,
)
from dicomnode.domain.ranking import rank
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Condition, Rule

POLICY = ChoosingPolicy()
RULES = (
    Rule(name="lung", model="lungs", when=Condition(kernel=("B[67]*",))),
    Rule(name="mono", model="demo", when=Condition(monoenergetic=True)),
    Rule(name="rest", model="demo"),
)
STACKS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "number": st.none() | st.integers(1, 5),
        "slices": st.sampled_from([2, 8, 25, 30]),
        "spacing": st.sampled_from([0.0, 1.0, 3.0, 5.0]),
        "start": st.sampled_from([0.0, 100.0]),
    },
    optional={
        "kernel": st.sampled_from([(), ("Br40d",), ("B70f",), ("Bl57d",)]),
        "slice_thickness_mm": st.sampled_from([None, 0.6, 1.0, 5.0]),
        "frame_of_reference_uid": st.sampled_from(["1.9", "1.8", ""]),
        "orientation": st.sampled_from([(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), CORONAL, ()]),
        "image_type": st.sampled_from(
            [
                ("ORIGINAL", "PRIMARY", "AXIAL"),
                ("DERIVED", "SECONDARY", "MPR"),
                ("DERIVED", "PRIMARY", "AXIAL", "MIP"),
                ("ORIGINAL", "PRIMARY", "LOCALIZER"),
            ]
        ),
        "rescale_type": st.sampled_from(["HU", "HU", "MGML"]),
        "description": st.sampled_from(["", "Mono 70 keV", "Mono 40 keV", "VNC"]),
    },
)
STUDIES = st.lists(STACKS, max_size=6).map(
    lambda stacks: [series(f"1.2.{index}", **stack) for index, stack in enumerate(stacks)]
)
STANDINGS = st.sampled_from([None, Standing.DONE, Standing.UNDER_WAY, Standing.REFUSED])


@settings(max_examples=150, deadline=None)
@given(study=STUDIES, order=st.randoms(use_true_random=False), standings=st.lists(STANDINGS))
def test_the_order_of_the_series_is_irrelevant(
    study: list[SeriesFacts], order: Any, standings: list[Standing | None]
) -> None:
    before = {
        (facts.series_uid, "demo"): standing
        for facts, standing in zip(study, standings, strict=False)
        if standing is not None
    }
    found = choose_series(RULES, POLICY, study, before)
    assert set(found) == {facts.series_uid for facts in study}
    assert all(verdict.why for verdict in found.values())
    shuffled = list(study)
    order.shuffle(shuffled)
    assert choose_series(RULES, POLICY, shuffled, before) == found


@settings(max_examples=150, deadline=None)
@given(study=STUDIES)
def test_exactly_one_for_each_model_and_frame_of_reference_that_has_any(
    study: list[SeriesFacts],
) -> None:
    found = choose_series(RULES, POLICY, study)
    alone = {
        facts.series_uid: choose_series(RULES, POLICY, [facts])[facts.series_uid] for facts in study
    }
    fit: dict[tuple[str | None, str], list[str]] = {}
    for facts in study:
        one = alone[facts.series_uid]
        if one.code == CHOSEN:
            key = (one.choice.model, facts.image.frame_of_reference_uid)
            fit.setdefault(key, []).append(facts.series_uid)
        else:
            assert found[facts.series_uid] == one
    for uids in fit.values():
        assert sum(found[uid].is_chosen for uid in uids) == 1
    for facts in study:  # the law: nothing that is no CT in HU
        if found[facts.series_uid].is_chosen:
            assert not facts.refusal
            assert facts.image.rescale_type == "HU"
            assert facts.description != "VNC"


@settings(max_examples=150, deadline=None)
@given(study=STUDIES, stack=STACKS)
def test_another_series_that_is_worse_changes_nothing(
    study: list[SeriesFacts], stack: dict[str, Any]
) -> None:
    rules = (RULES[2],)
    more = series("1.3", **stack)
    before = choose_series(rules, POLICY, study)
    after = choose_series(rules, POLICY, [*study, more])
    frame = more.image.frame_of_reference_uid
    chosen = [
        facts
        for facts in study
        if before[facts.series_uid].is_chosen and facts.image.frame_of_reference_uid == frame
    ]
    if not chosen:
        return
    fits = choose_series(rules, POLICY, [more])["1.3"].is_chosen
    is_better = fits and rank([chosen[0], more]).order[0] == "1.3"
    assert after["1.3"].is_chosen == is_better
    assert after[chosen[0].series_uid].is_chosen != is_better


@settings(max_examples=100, deadline=None)
@given(study=STUDIES.filter(bool))
def test_the_first_of_a_ranking_beats_each_of_the_others(study: list[SeriesFacts]) -> None:
    found = rank(study)
    assert sorted(found.order) == sorted(facts.series_uid for facts in study)
    by_uid = {facts.series_uid: facts for facts in study}
    best = by_uid[found.order[0]]
    for uid in found.order[1:]:
        assert rank([best, by_uid[uid]]).order[0] == best.series_uid
        assert found.lost_by[uid]
