"""Which series of a study are analysed, and for each why or why not. Pure; tables decide.

First what a series is (never analysed: no CT, localizers, maps that are not HU), then which rule it
gets, then whether it fits (orientation, coverage, size). Of the series that are left, one is taken
for each model and Frame of Reference, the best (`ranking`). So another series that is worse changes
nothing, and the order in which series come decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from dicomnode.domain.describing import named, not_covered
from dicomnode.domain.geometry import (
    coverage_mm,
    equivalent_slices,
    orientation_of,
    tilt_degrees,
)
from dicomnode.domain.ranking import rank, tie_break
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Choice, Rule, choose

MINIMUM_SLICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoosingPolicy:
    """What a series must be to be analysed, whatever rule it gets."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    max_slices: int = 2500
    """Of 512 x 512 pixels; a larger matrix counts for more. More is refused."""
    min_coverage_mm: float = 20.0
    """From the first slice to the last."""
    max_tilt_degrees: float = 30.0
    """Of the slices' normal against the axis of the body; more is not axial."""

    def __post_init__(self) -> None:
        if not MINIMUM_SLICES <= self.max_slices <= 100_000:
            raise ValueError(f"max_slices must be {MINIMUM_SLICES} to 100000")
        if not 0 <= self.min_coverage_mm <= 5000:
            raise ValueError("min_coverage_mm must be 0 to 5000")
        if not 0 <= self.max_tilt_degrees <= 45:
            raise ValueError("max_tilt_degrees must be 0 to 45")


class Standing(StrEnum):
    """What became of a series and a model before."""

    DONE = "done"
    UNDER_WAY = "under way"
    REFUSED = "refused"
    """By the analysis, in its present generation."""


CHOSEN = "CHOSEN"
CHOSEN_ALL = "CHOSEN_ALL"
CHOSEN_BY_HAND = "CHOSEN_BY_HAND"
BETTER_CHOSEN = "BETTER_CHOSEN"
CAME_TOO_LATE = "CAME_TOO_LATE"
ANALYSIS_REFUSED = "ANALYSIS_REFUSED"
NO_RULE = "NO_RULE"
RULE_SAYS_NO = "RULE_SAYS_NO"
NOT_AXIAL = "NOT_AXIAL"
TOO_LITTLE_COVERAGE = "TOO_LITTLE_COVERAGE"
TOO_MANY_SLICES = "TOO_MANY_SLICES"
TOO_FEW_SLICES = "TOO_FEW_SLICES"

VERDICTS: Mapping[str, str] = {
    CHOSEN: "It is analysed: the best of its Frame of Reference for the model, or the only one.",
    CHOSEN_ALL: "It is analysed: its rule says `choose: all`.",
    CHOSEN_BY_HAND: "It is analysed: a person has asked for it.",
    BETTER_CHOSEN: "Another series of the same Frame of Reference is better for the model.",
    CAME_TOO_LATE: (
        "It is better than the series that was analysed, but came when that was done already."
    ),
    ANALYSIS_REFUSED: "The analysis has refused it; the next best series had its turn.",
    NO_RULE: "No rule matches it.",
    RULE_SAYS_NO: "Its rule names no model, or is not for studies of this age.",
    NOT_AXIAL: "Its slices are not axial, and its rule does not ask for this orientation.",
    TOO_LITTLE_COVERAGE: "From first to last slice it covers less than choosing.min_coverage_mm.",
    TOO_MANY_SLICES: "It is larger than choosing.max_slices.",
    TOO_FEW_SLICES: "It has too few slices to be a volume.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a series, and why."""

    series_uid: str
    code: str
    """CHOSEN, CHOSEN_ALL, another of `VERDICTS`, or a reason code (`domain.reasons`)."""
    why: str
    choice: Choice
    """Its model is None where the series is not analysed."""

    @property
    def is_chosen(self) -> bool:
        """Whether the series is analysed."""
        return self.choice.model is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    facts: SeriesFacts
    choice: Choice
    standing: Standing | None


Before = Mapping[tuple[str, str], Standing]
"""By Series Instance UID and model."""


def choose_series(
    rules: Sequence[Rule],
    policy: ChoosingPolicy,
    study: Iterable[SeriesFacts],
    before: Before | None = None,
    allowed: Callable[[Choice], Choice] = lambda choice: choice,
) -> dict[str, Verdict]:
    """Decide on all series of a study.

    Args:
        rules: the first that matches a series is its rule.
        policy: what a series must be, whatever its rule.
        study: the facts of each series, in any order.
        before: what became of series of this study when it closed before.
        allowed: takes the model from a choice that is not to be, e.g. of a study too old.

    Returns:
        A verdict for each Series Instance UID.
    """
    known = before or {}
    series = sorted(study, key=tie_break)
    verdicts: dict[str, Verdict] = {}
    groups: dict[tuple[str, str], list[_Candidate]] = {}
    for facts in series:
        decided = _alone(rules, policy, facts, allowed)
        verdicts[facts.series_uid] = decided
        if decided.code == CHOSEN and decided.choice.model is not None:
            key = (decided.choice.model, facts.image.frame_of_reference_uid)
            standing = known.get((facts.series_uid, decided.choice.model))
            groups.setdefault(key, []).append(
                _Candidate(facts=facts, choice=decided.choice, standing=standing)
            )
    done = {
        (model, facts.image.frame_of_reference_uid): facts
        for facts in series
        for (uid, model), standing in known.items()
        if uid == facts.series_uid and standing is Standing.DONE
    }
    for key, candidates in groups.items():
        for verdict in _of_group(candidates, done.get(key)):
            verdicts[verdict.series_uid] = verdict
    return verdicts


def choose_alone(rules: Sequence[Rule], policy: ChoosingPolicy, facts: SeriesFacts) -> Verdict:
    """Decide on a series as if there were no other, and its study of any age: a person wants it."""
    return _alone(rules, policy, facts, lambda choice: choice)


def _alone(
    rules: Sequence[Rule],
    policy: ChoosingPolicy,
    facts: SeriesFacts,
    allowed: Callable[[Choice], Choice],
) -> Verdict:
    """Decide on a series as if there were no other."""

    def no(code: str, why: str, choice: Choice | None = None) -> Verdict:
        rule = None if choice is None else choice.rule
        given = Choice(model=None, rule=rule, destinations=(), why=why)
        return Verdict(series_uid=facts.series_uid, code=code, why=why, choice=given)

    if facts.refusal:
        return no(facts.refusal, f"never analysed: {facts.refusal_says}")
    choice = choose(rules, facts)
    if choice.rule is None:
        return no(NO_RULE, choice.why)
    if choice.model is None:
        return no(RULE_SAYS_NO, choice.why, choice)
    permitted = allowed(choice)
    if permitted.model is None:
        return no(RULE_SAYS_NO, permitted.why, choice)
    reason = _unfit(policy, facts, choice)
    if reason is not None:
        return no(reason[0], f"{choice.why}, but {reason[1]}", choice)
    energy = "" if not facts.monoenergetic else f", virtual monoenergetic{_kev(facts)}"
    return Verdict(
        series_uid=facts.series_uid, code=CHOSEN, why=f"{choice.why}{energy}", choice=choice
    )


def _kev(facts: SeriesFacts) -> str:
    return " of unknown energy" if facts.kev is None else f" at {facts.kev:g} keV"


def _unfit(policy: ChoosingPolicy, facts: SeriesFacts, choice: Choice) -> tuple[str, str] | None:
    """Return code and sentence of why a series does not fit, or None."""
    tilt = tilt_degrees(facts.image)
    if not choice.any_orientation and tilt > policy.max_tilt_degrees:
        return (
            NOT_AXIAL,
            f"its slices are {orientation_of(facts.image)}, {tilt:g} degrees off axial",
        )
    size = equivalent_slices(facts)
    if size > policy.max_slices:
        return TOO_MANY_SLICES, (
            f"{facts.slices} slices of {facts.image.columns} x {facts.image.rows} pixels are more"
            f" than choosing.max_slices, {policy.max_slices} of 512 x 512"
        )
    if facts.slices < MINIMUM_SLICES or facts.places < MINIMUM_SLICES:
        return TOO_FEW_SLICES, (
            f"{facts.slices} slices at {facts.places} places are no volume, at least"
            f" {MINIMUM_SLICES} are needed"
        )
    coverage = coverage_mm(facts)
    if coverage < policy.min_coverage_mm:
        return TOO_LITTLE_COVERAGE, (
            f"it covers {coverage:g} mm, less than choosing.min_coverage_mm,"
            f" {policy.min_coverage_mm:g}"
        )
    return None


def _of_group(candidates: Sequence[_Candidate], done: SeriesFacts | None) -> Iterable[Verdict]:
    """Decide between the series of one model and Frame of Reference."""
    for item in candidates:
        if item.choice.take_all:
            yield _verdict(item, CHOSEN_ALL, f"{item.choice.why}, which says choose: all", True)
    rivals = [item for item in candidates if not item.choice.take_all]
    refused = [item for item in rivals if item.standing is Standing.REFUSED]
    for item in refused:
        # Still chosen: the job is there, and a person may queue it again.
        yield _verdict(item, ANALYSIS_REFUSED, f"{item.choice.why}; the analysis refused it", False)
    open_ones = [item for item in rivals if item.standing is not Standing.REFUSED]
    if done is not None:
        yield from _beside_done(open_ones, done)
        return
    if not open_ones:
        return
    first_rule = min(item.choice.rule_index for item in open_ones)
    best = rank(item.facts for item in open_ones if item.choice.rule_index == first_rule)
    winner = next(item for item in open_ones if item.facts.series_uid == best.order[0])
    many = len(open_ones)
    against = "the only series that fits" if many == 1 else f"the best of {many} that fit"
    yield _verdict(winner, CHOSEN, f"{_own_words(winner)}: {against}", True)
    for item in open_ones:
        if item is not winner:
            lost_by = best.lost_by.get(item.facts.series_uid, "is matched by an earlier rule")
            yield _beaten(item, winner.facts, lost_by)


def _beside_done(rivals: Sequence[_Candidate], done: SeriesFacts) -> Iterable[Verdict]:
    """Decide on series beside one whose analysis is done: that one stays the choice."""
    for item in rivals:
        if item.standing is not None or item.facts.series_uid == done.series_uid:
            # Under way beside one that is done: a person has queued it.
            yield _verdict(item, CHOSEN, f"{_own_words(item)}: taken up before", True)
            continue
        best = rank((item.facts, done))
        if best.order[0] == item.facts.series_uid:
            says = f"better than {named(done)}, which was analysed before this one came"
            yield _verdict(item, CAME_TOO_LATE, f"{_own_words(item)}; {says}", False)
        else:
            yield _beaten(item, done, best.lost_by[item.facts.series_uid])


def _beaten(item: _Candidate, by: SeriesFacts, lost_by: str) -> Verdict:
    says = lost_by + not_covered(item.facts, by)
    return _verdict(item, BETTER_CHOSEN, f"{_own_words(item)}, but {named(by)} {says}", False)


def _own_words(item: _Candidate) -> str:
    energy = "" if not item.facts.monoenergetic else f", monoenergetic{_kev(item.facts)}"
    return f"{item.choice.why}{energy}"


def _verdict(item: _Candidate, code: str, why: str, chosen: bool) -> Verdict:
    choice = item.choice if chosen else replace(item.choice, model=None, destinations=())
    return Verdict(
        series_uid=item.facts.series_uid, code=code, why=why, choice=replace(choice, why=why)
    )
