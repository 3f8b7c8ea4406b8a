"""Which series gets which model, and where results of which model may go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import (
    Condition,
    Rule,
    choose,
    is_loopback,
    may_receive,
    mismatch,
)
from dicomnode.domain.series import CT_SOP_CLASSES

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
MR = "1.2.840.10008.5.1.4.1.1.4"
SERIES = SeriesFacts(
    modality="CT",
    sop_class_uids=(CT,),
    body_part="CHEST",
    description="Thorax 1.0 Br40",
    slice_thickness_mm=1.0,
    instances=300,
    calling_aes=("MODALITY", "PACS"),
)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"modality": ("CT",)}, True),
        ({"modality": ("ct",)}, True),
        ({"modality": ("MR", "CT")}, True),
        ({"modality": ("MR",)}, False),
        ({"modality": ("C",)}, False),
        ({"body_part": ("*chest*", "ABDOMEN")}, True),
        ({"body_part": ("ABDOMEN",)}, False),
        ({"description": ("thorax*",)}, True),
        ({"description": ("*BR4?",)}, True),
        ({"description": ("thorax",)}, False),
        ({"not_description": ("*scout*", "*br40")}, False),
        ({"not_description": ("*scout*",)}, True),
        ({"sending_ae": ("PACS",)}, True),
        ({"sending_ae": ("MOD*",)}, True),
        ({"sending_ae": ("OTHER",)}, False),
        ({"min_slice_thickness_mm": 1.0}, True),
        ({"min_slice_thickness_mm": 1.01}, False),
        ({"max_slice_thickness_mm": 1.0}, True),
        ({"max_slice_thickness_mm": 0.99}, False),
        ({"min_instances": 300}, True),
        ({"min_instances": 301}, False),
        ({"max_instances": 300}, True),
        ({"max_instances": 299}, False),
        ({"modality": ("CT",), "min_instances": 301}, False),
    ],
)
def test_a_condition_holds_only_if_all_of_it_does(condition: dict[str, Any], holds: bool) -> None:
    assert (mismatch(Condition(**condition), SERIES) is None) == holds


@pytest.mark.parametrize(
    ("condition", "series", "why"),
    [
        ({"modality": ("MR",)}, {}, "modality CT is not MR"),
        ({"body_part": ("A", "B")}, {"body_part": ""}, "body_part (empty) is not A or B"),
        ({"sending_ae": ("A",)}, {"calling_aes": ()}, "sending_ae (none) is not A"),
        ({"min_instances": 400}, {}, "instances 300 is below 400"),
        ({"max_slice_thickness_mm": 0.5}, {}, "slice_thickness_mm 1 is above 0.5"),
        (
            {"max_slice_thickness_mm": 5},
            {"slice_thickness_mm": None},
            "slice_thickness_mm is not stated",
        ),
        ({"not_description": ("*",)}, {}, "description is among *"),
    ],
)
def test_it_says_why_a_rule_does_not_match(
    condition: dict[str, Any], series: dict[str, Any], why: str
) -> None:
    assert mismatch(Condition(**condition), replace(SERIES, **series)) == why


def test_a_pattern_does_not_know_regular_expressions() -> None:
    assert mismatch(Condition(description=("Thorax.*",)), SERIES) is not None


def rule(name: str, model: str | None = "demo", **condition: Any) -> Rule:
    return Rule(name=name, when=Condition(**condition), model=model, destinations=("archive",))


def test_the_first_rule_that_matches_wins() -> None:
    rules = (rule("mr", modality=("MR",)), rule("one", "a"), rule("two", "b"))
    choice = choose(rules, SERIES)
    assert (choice.rule, choice.model, choice.destinations) == ("one", "a", ("archive",))
    assert choice.why == "rule 'one'"


def test_a_rule_without_model_stops_the_search_and_analyses_nothing() -> None:
    choice = choose((rule("never", None), rule("two")), SERIES)
    assert (choice.rule, choice.model, choice.destinations) == ("never", None, ())
    assert choice.why == "rule 'never' analyses nothing"


def test_every_rule_says_why_it_did_not_match() -> None:
    choice = choose((rule("mr", modality=("MR",)), rule("big", min_instances=400)), SERIES)
    assert choice.model is None
    assert choice.why == (
        "no rule matches ('mr': modality CT is not MR; 'big': instances 300 is below 400)"
    )


def test_without_rules_nothing_is_analysed() -> None:
    assert (choose((), SERIES).model, choose((), SERIES).why) == (None, "there are no rules")


@pytest.mark.parametrize("classes", [(), (SEG,), (CT, SEG), (CT, MR), (MR, SEG)])
def test_only_ct_and_mr_storage_classes_are_ever_analysed(classes: tuple[str, ...]) -> None:
    """Whatever Modality says: a mixture, or a result routed back."""
    choice = choose((rule("all"),), replace(SERIES, sop_class_uids=classes))
    assert (choice.model, choice.why) == (None, "not a CT or MR image series")


def test_mr_is_analysed_only_where_a_rule_names_it() -> None:
    series = replace(SERIES, modality="MR", sop_class_uids=(MR,))
    silent = choose((rule("all"),), series)
    assert (silent.model, silent.why) == (
        None,
        "no rule matches ('all': it does not name the modality MR)",
    )
    named = rule("mr", "tiny-mr", modality=("MR",))
    assert choose((rule("all"), named), series).model == "tiny-mr"
    assert choose((rule("nothing", None),), series).why == "rule 'nothing' analyses nothing"
    disguised = replace(SERIES, sop_class_uids=(MR,))
    assert choose((rule("ct", modality=("CT",)),), disguised).model is None


@pytest.mark.parametrize("sop_class", sorted(CT_SOP_CLASSES))
def test_every_ct_storage_class_is_looked_at(sop_class: str) -> None:
    """Enhanced ones too: the analysis refuses them with a reason, the rules do not hide them."""
    assert choose((rule("all"),), replace(SERIES, sop_class_uids=(sop_class,))).model == "demo"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("192.168.1.2", False),
        ("localhost.example.org", False),
        ("pacs", False),
        ("127.0.0.1.example.org", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_by_its_very_name(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    assert may_receive(host=host, allow_demo=False, demonstration=True) == loopback
    assert may_receive(host=host, allow_demo=True, demonstration=True)
    assert may_receive(host=host, allow_demo=False, demonstration=False)
