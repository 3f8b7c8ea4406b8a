"""Which series gets which model, and where its results may go. Rules are data; first match wins."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from dicomnode.domain.geometry import coverage_mm, orientation_of
from dicomnode.domain.plans import DEFAULT_OPTIONS, ModelOptions
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.series import modality_of

Orientation = Literal["axial", "coronal", "sagittal", "oblique"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What a series must be for a rule to match; what is not given matches everything.

    Texts are patterns with `*` and `?`, compared without regard to case; any of a list suffices.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
    }

    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    """Series Description."""
    not_description: tuple[str, ...] = ()
    """Series Descriptions that this rule leaves alone."""
    study_description: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    """Protocol Name."""
    manufacturer: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    """Manufacturer's Model Name."""
    station: tuple[str, ...] = ()
    """Station Name."""
    kernel: tuple[str, ...] = ()
    """Convolution Kernel, any of its values."""
    not_kernel: tuple[str, ...] = ()
    sending_ae: tuple[str, ...] = ()
    contrast: bool | None = None
    """Whether a Contrast/Bolus Agent is stated."""
    original: bool | None = None
    """Whether Image Type begins with ORIGINAL."""
    orientation: tuple[Orientation, ...] = ()
    """Empty: only what is axial within choosing.max_tilt_degrees."""
    monoenergetic: bool = False
    """True, or an energy given: virtual monoenergetic images and nothing else; else never them."""
    min_kev: float | None = None
    max_kev: float | None = None
    min_kvp: float | None = None
    max_kvp: float | None = None
    min_slice_thickness_mm: float | None = None
    max_slice_thickness_mm: float | None = None
    min_coverage_mm: float | None = None
    max_coverage_mm: float | None = None
    min_instances: int | None = None
    max_instances: int | None = None

    @property
    def wants_monoenergetic(self) -> bool:
        """Whether virtual monoenergetic images match, and nothing else; an energy says so too."""
        return self.monoenergetic or self.min_kev is not None or self.max_kev is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A condition, the model for the series it matches, and the destinations of the results."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    name: str
    when: Condition = Condition()
    model: str | None
    """Of the catalog; null keeps the series and analyses nothing."""
    destinations: tuple[str, ...] = ()
    """Where the results go; none means nowhere: they stay in the spool."""
    choose: Literal["one", "all"] = "one"
    """One series of the study for each model and Frame of Reference, or every one that matches."""
    options: ModelOptions = DEFAULT_OPTIONS
    """How the model is run."""
    any_age: bool = False
    """Analyse studies of any age, not only of assembly.max_study_age_days."""
    priority: Literal["stat", "routine"] = "routine"
    """Of the jobs; stat goes before whatever else waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the rules decided on a series, and why."""

    model: str | None
    rule: str | None
    destinations: tuple[str, ...]
    why: str
    options: ModelOptions = DEFAULT_OPTIONS
    any_age: bool = False
    stat: bool = False
    rule_index: int = 0
    take_all: bool = False
    any_orientation: bool = False
    """The rule has said which orientations it wants."""
    monoenergetic: bool = False
    """The rule has asked for virtual monoenergetic images."""


def _any_like(patterns: Sequence[str], *values: str) -> bool:
    return any(
        fnmatchcase(value.casefold(), pattern.casefold())
        for pattern in patterns
        for value in values
    )


def mismatch(condition: Condition, series: SeriesFacts) -> str | None:
    """Return why the condition does not hold for the series, or None if it holds."""
    for name, values in _texts(series).items():
        patterns: tuple[str, ...] = getattr(condition, name)
        if patterns and not _any_like(patterns, *values):
            shown = ", ".join(value or "(empty)" for value in values) or "(none)"
            return f"{name} {shown} is not {' or '.join(patterns)}"
    if condition.not_description and _any_like(condition.not_description, series.description):
        return f"description is among {' or '.join(condition.not_description)}"
    if condition.not_kernel and _any_like(condition.not_kernel, *series.image.kernel):
        return f"kernel is among {' or '.join(condition.not_kernel)}"
    return _mismatch_of_kind(condition, series) or _mismatch_of_numbers(condition, series)


def _texts(series: SeriesFacts) -> dict[str, tuple[str, ...]]:
    image = series.image
    return {
        "modality": (series.modality,),
        "body_part": (series.body_part,),
        "description": (series.description,),
        "study_description": (image.study_description,),
        "protocol": (image.protocol,),
        "manufacturer": (image.manufacturer,),
        "device": (image.device,),
        "station": (image.station,),
        "kernel": image.kernel,
        "orientation": (orientation_of(image),),
        "sending_ae": series.calling_aes,
    }


def _mismatch_of_kind(condition: Condition, series: SeriesFacts) -> str | None:
    if series.monoenergetic and not condition.wants_monoenergetic:
        return "virtual monoenergetic images, which it does not ask for"
    if condition.wants_monoenergetic and not series.monoenergetic:
        return "not virtual monoenergetic images"
    given = series.image.contrast_given
    if condition.contrast is not None and condition.contrast != given:
        return "a contrast agent is stated" if given else "no contrast agent is stated"
    original = series.image.is_original
    if condition.original is not None and condition.original != original:
        return "Image Type is ORIGINAL" if original else "Image Type is not ORIGINAL"
    return None


def _mismatch_of_numbers(condition: Condition, series: SeriesFacts) -> str | None:
    numbers = {
        "slice_thickness_mm": series.slice_thickness_mm,
        "coverage_mm": coverage_mm(series),
        "kvp": series.image.kvp,
        "kev": series.kev,
        "instances": float(max(series.instances, series.slices)),
    }
    for name, number in numbers.items():
        least = getattr(condition, f"min_{name}")
        most = getattr(condition, f"max_{name}")
        if least is None and most is None:
            continue
        if number is None:
            return f"{name} is not stated"
        if least is not None and number < least:
            return f"{name} {number:g} is below {least:g}"
        if most is not None and number > most:
            return f"{name} {number:g} is above {most:g}"
    return None


def may_take(rule: Rule, modality: Literal["CT", "MR"]) -> bool:
    """Whether a rule is for images of a modality: for CT unless it says otherwise, for MR if it
    says so."""
    if modality == "CT" and not rule.when.modality:
        return True
    return _any_like(rule.when.modality, modality)


def against(rule: Rule, series: SeriesFacts) -> str | None:
    """Return why a rule does not match a series of CT or MR images, or None if it does."""
    reason = mismatch(rule.when, series)
    is_mr = modality_of(series.sop_class_uids) == "MR"
    if reason is None and rule.model and is_mr and not may_take(rule, "MR"):
        return "it does not name the modality MR"
    return reason


def choose(rules: Sequence[Rule], series: SeriesFacts) -> Choice:
    """Return the first matching rule's choice for a series.

    Whatever the rules say, only CT storage classes are analysed, and MR Image Storage where a rule
    names the modality: most models know CT alone.
    """
    if modality_of(series.sop_class_uids) is None:
        return Choice(model=None, rule=None, destinations=(), why="not a CT or MR image series")
    reasons = []
    for index, rule in enumerate(rules):
        reason = against(rule, series)
        if reason is None:
            why = f"rule {rule.name!r}" if rule.model else f"rule {rule.name!r} analyses nothing"
            return Choice(
                model=rule.model,
                rule=rule.name,
                destinations=rule.destinations if rule.model else (),
                why=why,
                options=rule.options,
                any_age=rule.any_age,
                stat=rule.priority == "stat",
                rule_index=index,
                take_all=rule.choose == "all",
                any_orientation=bool(rule.when.orientation),
                monoenergetic=rule.when.wants_monoenergetic,
            )
        reasons.append(f"{rule.name!r}: {reason}")
    why = "no rule matches (" + "; ".join(reasons) + ")" if reasons else "there are no rules"
    return Choice(model=None, rule=None, destinations=(), why=why)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its very name or address; no name is looked up."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_receive(*, host: str, allow_demo: bool, demonstration: bool) -> bool:
    """Whether a result may go to `host`: those of a demonstration model go to loopback only."""
    return not demonstration or allow_demo or is_loopback(host)
