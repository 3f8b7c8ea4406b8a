"""Which series of a study are analysed, and for each why or why not. Pure; tables decide.

First what a series is (never analysed: no CT, localizers, maps that are not HU), then which rule it
gets, then whether it fits (orientation, coverage, size). Of the series that are left, one is taken
for each model and Frame of Reference: the criteria of a table are applied one after the other, each
keeps the best, until one series is left. So another series that is worse changes nothing, and the
order in which series come decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar

from dicomnode.domain.geometry import (
    coverage_mm,
    equivalent_slices,
    orientation_of,
    thickness_mm,
    tilt_degrees,
)
from dicomnode.domain.kernels import Sharpness, sharpness
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.routing import Choice, Rule, choose

MINIMUM_SLICES = 4
ENOUGH_COVERAGE = 0.8
"""Part of the longest coverage among the candidates; less is only a part of what was examined."""
THICKNESS_CLASSES_MM = (2.0, 3.5, 6.0)
"""Series of one class are equally thin where the kernel decides between them."""

LIKE_CT_KEV = 70.0
"""Virtual monoenergetic images of it have values most like those at 120 kV."""


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
    series = sorted(study, key=_tie_break)
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
            says = f"better than {_named(done)}, which was analysed before this one came"
            yield _verdict(item, CAME_TOO_LATE, f"{_own_words(item)}; {says}", False)
        else:
            yield _beaten(item, done, best.lost_by[item.facts.series_uid])


def _beaten(item: _Candidate, by: SeriesFacts, lost_by: str) -> Verdict:
    says = lost_by + _not_covered(item.facts, by)
    return _verdict(item, BETTER_CHOSEN, f"{_own_words(item)}, but {_named(by)} {says}", False)


def _own_words(item: _Candidate) -> str:
    energy = "" if not item.facts.monoenergetic else f", monoenergetic{_kev(item.facts)}"
    return f"{item.choice.why}{energy}"


def _verdict(item: _Candidate, code: str, why: str, chosen: bool) -> Verdict:
    choice = item.choice if chosen else replace(item.choice, model=None, destinations=())
    return Verdict(
        series_uid=item.facts.series_uid, code=code, why=why, choice=replace(choice, why=why)
    )


def _named(facts: SeriesFacts) -> str:
    number = "" if facts.series_number is None else f" {facts.series_number}"
    return f"series{number} ({facts.description or facts.series_uid})"


def _not_covered(loser: SeriesFacts, winner: SeriesFacts) -> str:
    """Say how much only the loser covers, where that can be compared."""
    if loser.image.orientation != winner.image.orientation:
        return ""
    if None in (loser.first_mm, loser.last_mm, winner.first_mm, winner.last_mm):
        return ""
    before = max(0.0, (winner.first_mm or 0.0) - (loser.first_mm or 0.0))
    after = max(0.0, (loser.last_mm or 0.0) - (winner.last_mm or 0.0))
    if before + after < 20:
        return ""
    return f"; {before + after:.0f} mm are covered by this one alone (see `choose: all`)"


# Facts that the criteria compare


def _thickness_class(facts: SeriesFacts) -> int:
    return sum(thickness_mm(facts) > limit + 1e-6 for limit in THICKNESS_CLASSES_MM)


def _has_duplicates(facts: SeriesFacts) -> int:
    return int(facts.places < facts.slices)


def _has_gaps(facts: SeriesFacts) -> int:
    gap, spacing = facts.largest_gap_mm, facts.spacing_mm
    return int(gap is not None and spacing is not None and gap > 1.5 * spacing)


def _tie_break(facts: SeriesFacts) -> tuple[float, str]:
    number = math.inf if facts.series_number is None else facts.series_number
    return number, facts.series_uid


# The criteria


@dataclass(frozen=True, slots=True)
class _Criterion:
    """Keeps those whose value is least."""

    value: Callable[[SeriesFacts], float]
    says: str
    """Of a kept series, why it is better; {kept} and {lost} stand for what `show` shows of each."""
    show: Callable[[SeriesFacts], str] = str
    enough: float | None = None
    """Where given, the value is a gain, and all that reach this part of the most are kept."""

    def sentence(self, kept: SeriesFacts, lost: SeriesFacts) -> str:
        return self.says.format(kept=self.show(kept), lost=self.show(lost))


def _shown_coverage(facts: SeriesFacts) -> str:
    return f"{coverage_mm(facts):g} mm"


def _shown_thickness(facts: SeriesFacts) -> str:
    return f"{thickness_mm(facts):g} mm"


def _kernel(facts: SeriesFacts) -> str:
    names = "/".join(facts.image.kernel)
    if not names:
        return "not stated"
    kind = {Sharpness.SOFT: "soft", Sharpness.SHARP: "sharp", Sharpness.UNKNOWN: "unknown kind"}
    return f"{names}, {kind[sharpness(facts.image.kernel)]}"


def _energy_off(facts: SeriesFacts) -> float:
    return abs((facts.kev or math.inf) - LIKE_CT_KEV) if facts.monoenergetic else 0.0


CRITERIA: tuple[_Criterion, ...] = (
    _Criterion(_has_duplicates, "has one image at each place"),
    _Criterion(
        coverage_mm, "covers {kept}, this one {lost}", _shown_coverage, enough=ENOUGH_COVERAGE
    ),
    _Criterion(_has_gaps, "has no gaps"),
    _Criterion(
        _energy_off, f"is nearer to {LIKE_CT_KEV:g} keV, where HU are most like those of CT"
    ),
    _Criterion(_thickness_class, "is thinner ({kept}, this one {lost})", _shown_thickness),
    _Criterion(
        lambda facts: float(sharpness(facts.image.kernel)),
        "has a softer kernel ({kept}, this one {lost})",
        _kernel,
    ),
    _Criterion(
        lambda facts: facts.image.distance_from_original, "is nearer to the original reconstruction"
    ),
    _Criterion(thickness_mm, "is thinner ({kept}, this one {lost})", _shown_thickness),
    _Criterion(
        lambda facts: -coverage_mm(facts), "covers {kept}, this one {lost}", _shown_coverage
    ),
    _Criterion(lambda facts: float(facts.spacing_mm or 0.0), "has its slices closer together"),
    _Criterion(lambda facts: _tie_break(facts)[0], "is as good and has the lower Series Number"),
)
"""In the order in which they are applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Series by preference: who is first, and by what each of the others has lost to it."""

    order: tuple[str, ...]
    """Series Instance UIDs: the best, then the others as they were put aside, last ones first."""
    lost_by: Mapping[str, str]


def rank(series: Iterable[SeriesFacts]) -> Ranking:
    """Apply the criteria until one series is left; at least one must be given."""
    left = sorted(series, key=_tie_break)
    lost: list[tuple[SeriesFacts, _Criterion]] = []
    for criterion in CRITERIA:
        kept = _kept(criterion, left)
        lost += [(item, criterion) for item in left if item not in kept]
        left = kept
    best = left[0]
    says = {item.series_uid: criterion.sentence(best, item) for item, criterion in lost}
    says |= {item.series_uid: "is as good and has the lower UID" for item in left[1:]}
    order = [best, *left[1:], *(item for item, _ in reversed(lost))]
    return Ranking(order=tuple(item.series_uid for item in order), lost_by=says)


def _kept(criterion: _Criterion, left: Sequence[SeriesFacts]) -> list[SeriesFacts]:
    values = [criterion.value(item) for item in left]
    if criterion.enough is not None:
        least = max(values) * criterion.enough
        return [item for item, value in zip(left, values, strict=True) if value >= least]
    best = min(values)
    return [item for item, value in zip(left, values, strict=True) if value == best]


def summary(facts: SeriesFacts) -> dict[str, Any]:
    """Return what people want to know of a series beside its choice."""
    thickness = thickness_mm(facts)
    return {
        "orientation": orientation_of(facts.image),
        "slices": facts.slices,
        "left_out": facts.left_out,
        "thickness_mm": thickness if math.isfinite(thickness) else None,
        "spacing_mm": facts.spacing_mm,
        "coverage_mm": coverage_mm(facts),
        "kernel": "/".join(facts.image.kernel),
        "image_type": "/".join(facts.image.image_type),
        "contrast": facts.image.contrast,
        "kvp": facts.image.kvp,
        "kev": facts.kev,
        "monoenergetic": facts.monoenergetic,
        "frame_of_reference_uid": facts.image.frame_of_reference_uid,
    }
