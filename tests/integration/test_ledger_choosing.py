"""What the choice does in the ledger: one job for each Frame of Reference, and what changes it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from typing import Any

from ledger_kit import (
    POLICY,
    QUIET_SECONDS,
    claimed,
    fail,
    finish,
    header,
    receive,
    rows,
    states,
)
from studies import IMAGE

from dicomnode.domain.assembly import Close
from dicomnode.domain.choosing import ChoosingPolicy, Verdict, choose_alone, choose_series
from dicomnode.domain.images import encode
from dicomnode.domain.outcomes import Refuse
from dicomnode.domain.records import Header
from dicomnode.domain.routing import Condition, Rule
from dicomnode.ledger import Ledger, closing, overview
from dicomnode.ledger.choosing import analyze_by_hand, series_facts
from dicomnode.ledger.tables import event, instance, job, series, study

RULES = (Rule(name="CT", model="demo", when=Condition(modality=("CT",))),)


def stack(number: int, slices: int = 12, spacing: float = 3.0, **image: Any) -> list[Header]:
    """Return the headers of series 1.2.`number`, of a stack."""
    facts = replace(IMAGE, **{"slice_thickness_mm": spacing, **image})
    return [
        header(
            f"1.2.{number}.{index + 1}",
            series=f"1.2.{number}",
            series_number=number,
            series_description=facts.description,
            image=facts,
            place_mm=spacing * index,
        )
        for index in range(slices)
    ]


def close(ledger: Ledger, clock: Any, rules: tuple[Rule, ...] = RULES) -> None:
    clock.forward(QUIET_SECONDS)
    chooser = partial(choose_series, rules, ChoosingPolicy())
    with ledger.transaction() as tx:
        assert isinstance(closing.close_due_study(tx, chooser, POLICY), Close)


def choices(ledger: Ledger) -> dict[int, str]:
    return {row.series_number: row.choice_code for row in rows(ledger, series)}


def codes(ledger: Ledger) -> list[str]:
    return [row.code for row in rows(ledger, event)]


THIN = stack(5, slices=36, spacing=1.0)
THICK = stack(3)


def test_of_a_study_one_series_gets_a_job_and_each_its_reason(ledger: Ledger, clock: Any) -> None:
    receive(
        ledger,
        *stack(1, 2, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        *THICK,
        *stack(4, 36, 1.0, kernel=("B70f",)),
        *THIN,
        *stack(6, description="Iodine map", rescale_type="MGML"),
        *stack(7, frame_of_reference_uid="1.8"),
    )
    close(ledger, clock)
    assert choices(ledger) == {
        1: "NOT_A_VOLUME",
        3: "BETTER_CHOSEN",
        4: "BETTER_CHOSEN",
        5: "CHOSEN",
        6: "DERIVED_MAP",
        7: "CHOSEN",
    }
    by_id = {row.id: row.series_number for row in rows(ledger, series)}
    assert sorted(by_id[row.series_id] for row in rows(ledger, job)) == [5, 7]
    with ledger.transaction() as tx:
        shown = overview.series_of(tx, "1.2")
    thick = shown[1]
    assert (thick["series_number"], thick["choice_code"]) == (3, "BETTER_CHOSEN")
    assert "series 5" in thick["choice"]
    assert thick["summary"]["thickness_mm"] == 3.0
    assert json.loads(json.dumps(shown)) == shown


def test_no_event_and_so_no_log_has_a_description(ledger: Ledger, clock: Any) -> None:
    """A description is free text: somebody may have typed a name into it."""
    typed = {"description": "Mueller Hans", "study_description": "Mueller Hans"}
    receive(ledger, *stack(3, **typed), *stack(4, kernel=("B70f",), **typed))
    close(ledger, clock)
    receive(ledger, *stack(5, 36, 1.0, **typed))
    close(ledger, clock)
    finish(ledger, claimed(ledger))
    receive(ledger, *stack(6, 72, 0.5, **typed))
    close(ledger, clock)
    assert {"CHOICE_CHANGED", "BETTER_SERIES_LATE"} <= set(codes(ledger))
    assert "Mueller" in rows(ledger, series)[0].choice  # in the ledger, for its user alone
    assert not [row.detail for row in rows(ledger, event) if "Mueller" in row.detail]


def test_a_person_has_a_series_analysed_that_came_too_late(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THICK)
    close(ledger, clock)
    finish(ledger, claimed(ledger))
    receive(ledger, *THIN)
    close(ledger, clock)
    assert choices(ledger)[5] == "CAME_TOO_LATE"
    late = next(row for row in rows(ledger, series) if row.series_number == 5)

    def ask(uid: str) -> Verdict | None:
        with ledger.transaction() as tx:
            return analyze_by_hand(tx, uid, partial(choose_alone, RULES, ChoosingPolicy()), "me")

    asked = ask(late.series_uid)
    assert asked is not None
    assert asked.code == "CHOSEN_BY_HAND"
    assert states(ledger, job) == ["DONE", "QUEUED"]
    assert "ANALYSIS_ASKED_FOR" in codes(ledger)
    assert ask(late.series_uid) is None, "once"
    assert ask("1.2.99") is None
    receive(ledger, *stack(6, description="Iodine map"))  # the study closes once more meanwhile
    close(ledger, clock)
    assert choices(ledger)[5] == "CHOSEN_BY_HAND"
    assert states(ledger, job) == ["DONE", "QUEUED"]
    unfit = next(row for row in rows(ledger, series) if row.series_number == 6)
    refused = ask(unfit.series_uid)
    assert refused is not None
    assert refused.code == "DERIVED_MAP"


def test_nothing_to_analyse_is_told(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *stack(6, description="Iodine map"))
    close(ledger, clock)
    assert rows(ledger, job) == []
    assert "NOTHING_CHOSEN" in codes(ledger)


def test_a_better_series_takes_the_place_of_one_that_waits(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THICK)
    close(ledger, clock)
    receive(ledger, *THIN)
    close(ledger, clock)
    assert choices(ledger) == {3: "BETTER_CHOSEN", 5: "CHOSEN"}
    assert states(ledger, job) == ["CANCELLED", "QUEUED"]
    assert "CHOICE_CHANGED" in codes(ledger)
    assert claimed(ledger).series_uid == "1.2.5"


def test_one_that_runs_gives_way_and_its_results_do_not_count(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THICK)
    close(ledger, clock)
    running = claimed(ledger)
    receive(ledger, *THIN)
    close(ledger, clock)
    assert not finish(ledger, running)
    assert states(ledger, job) == ["CANCELLED", "QUEUED"]


def test_what_is_done_stays_and_a_better_one_asks_for_attention_once(
    ledger: Ledger, clock: Any
) -> None:
    receive(ledger, *THICK)
    close(ledger, clock)
    finish(ledger, claimed(ledger))
    receive(ledger, *THIN[:30])
    close(ledger, clock)
    receive(ledger, *THIN[30:])
    close(ledger, clock)
    assert choices(ledger) == {3: "CHOSEN", 5: "CAME_TOO_LATE"}
    assert states(ledger, job) == ["DONE"]
    late = [row for row in rows(ledger, event) if row.code == "BETTER_SERIES_LATE"]
    assert [row.level for row in late] == ["attention"]
    assert "series 5 is better" in late[0].detail


def test_a_late_slice_of_the_chosen_series_is_analysed_as_ever(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THIN[:30])
    close(ledger, clock)
    finish(ledger, claimed(ledger))
    receive(ledger, *THIN[30:], *THICK)
    close(ledger, clock)
    assert choices(ledger) == {3: "BETTER_CHOSEN", 5: "CHOSEN"}
    assert [(row.state, row.generation) for row in rows(ledger, job)] == [
        ("DONE", 1),
        ("QUEUED", 2),
    ]


def test_a_refused_series_gives_its_turn_to_the_next(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THIN, *THICK)
    close(ledger, clock)
    assert fail(ledger, claimed(ledger), Refuse("MISSING_SLICE", "a gap"))
    assert [row.state for row in rows(ledger, study)] == ["OPEN"]
    close(ledger, clock)
    assert choices(ledger) == {3: "CHOSEN", 5: "ANALYSIS_REFUSED"}
    assert states(ledger, job) == ["REFUSED", "QUEUED"]
    assert claimed(ledger).series_uid == "1.2.3"


def test_the_last_one_that_is_refused_opens_nothing(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THIN, *stack(6, description="VNC"))
    close(ledger, clock)
    assert fail(ledger, claimed(ledger), Refuse("MISSING_SLICE", "a gap"))
    assert [row.state for row in rows(ledger, study)] == ["CLOSED"]


def test_what_gave_way_may_be_chosen_again(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *THICK)
    close(ledger, clock)
    receive(ledger, *THIN)
    close(ledger, clock)
    assert fail(ledger, claimed(ledger), Refuse("MISSING_SLICE", "a gap"))
    close(ledger, clock)
    assert choices(ledger) == {3: "CHOSEN", 5: "ANALYSIS_REFUSED"}
    assert states(ledger, job) == ["CANCELLED", "REFUSED", "QUEUED"]
    again = claimed(ledger)
    assert (again.series_uid, again.generation, len(again.paths)) == ("1.2.3", 2, 12)


def test_a_rule_for_monoenergetic_images_reaches_the_job(ledger: Ledger, clock: Any) -> None:
    receive(ledger, *stack(8, description="Mono+ 70 keV"))
    rule = Rule(name="mono", model="demo", when=Condition(min_kev=60.0))
    close(ledger, clock, (rule,))
    (row,) = rows(ledger, series)
    assert "monoenergetic at 70 keV" in row.choice
    assert row.summary["kev"] == 70.0
    assert claimed(ledger).monoenergetic


def test_all_facts_of_a_large_study_come_with_one_query(ledger: Ledger, clock: Any) -> None:
    receive(ledger, THIN[0], stack(9, 1)[0])
    big = {number: rows(ledger, series)[index] for index, number in enumerate((5, 9))}
    with ledger.transaction() as tx:
        template = tx.connection.execute(instance.select()).first()
        assert template is not None
        values = template._asdict()
        del values["id"]
        made = []
        for number, of_series in big.items():
            for index in range(1, 2000):
                uid = f"1.2.{number}.{index + 1}"
                made.append(
                    {
                        **values,
                        "series_id": of_series.id,
                        "sop_instance_uid": uid,
                        "path": uid,
                        "facts": encode(IMAGE),
                        "place_mm": 0.5 * index,
                    }
                )
        tx.connection.execute(instance.insert(), made)
    study_id = rows(ledger, study)[0].id
    begun = time.perf_counter()
    with ledger.transaction() as tx:
        found = series_facts(tx, study_id, list(big.values()))
    seconds = time.perf_counter() - begun
    assert [facts.slices for facts in found.values()] == [2000, 2000]
    assert seconds < 5  # a fraction of a second on an idle machine
    close(ledger, clock)
    assert choices(ledger) == {5: "CHOSEN", 9: "BETTER_CHOSEN"}
