"""Which of several series is the best to analyse, and by what the others lose; a table decides.

The criteria are applied one after the other, each keeps the best, until one series is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicomnode.domain.geometry import coverage_mm, thickness_mm
from dicomnode.domain.kernels import Sharpness, sharpness
from dicomnode.domain.records import SeriesFacts

ENOUGH_COVERAGE = 0.8
"""Part of the longest coverage among the candidates; less is only a part of what was examined."""
THICKNESS_CLASSES_MM = (2.0, 3.5, 6.0)
"""Series of one class are equally thin where the kernel decides between them."""
LIKE_CT_KEV = 70.0
"""Virtual monoenergetic images of it have values most like those at 120 kV."""

# Facts that the criteria compare


def _thickness_class(facts: SeriesFacts) -> int:
    return sum(thickness_mm(facts) > limit + 1e-6 for limit in THICKNESS_CLASSES_MM)


def _has_duplicates(facts: SeriesFacts) -> int:
    return int(facts.places < facts.slices)


def _has_gaps(facts: SeriesFacts) -> int:
    gap, spacing = facts.largest_gap_mm, facts.spacing_mm
    return int(gap is not None and spacing is not None and gap > 1.5 * spacing)


def tie_break(facts: SeriesFacts) -> tuple[float, str]:
    """Return what orders series that are equally good, and the same way whenever they come."""
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
    _Criterion(lambda facts: tie_break(facts)[0], "is as good and has the lower Series Number"),
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
    left = sorted(series, key=tie_break)
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
