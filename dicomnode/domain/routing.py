"""Which series gets which model, and where its results may go. Rules are data; first match wins."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

from dicomnode.domain.plans import DEFAULT_OPTIONS, ModelOptions
from dicomnode.domain.records import SeriesFacts

CT_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
    }
)


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
    sending_ae: tuple[str, ...] = ()
    min_slice_thickness_mm: float | None = None
    max_slice_thickness_mm: float | None = None
    min_instances: int | None = None
    max_instances: int | None = None


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


def _any_like(patterns: Sequence[str], *values: str) -> bool:
    return any(
        fnmatchcase(value.casefold(), pattern.casefold())
        for pattern in patterns
        for value in values
    )


def mismatch(condition: Condition, series: SeriesFacts) -> str | None:
    """Return why the condition does not hold for the series, or None if it holds."""
    texts: dict[str, tuple[str, ...]] = {
        "modality": (series.modality,),
        "body_part": (series.body_part,),
        "description": (series.description,),
        "sending_ae": series.calling_aes,
    }
    for name, values in texts.items():
        patterns: tuple[str, ...] = getattr(condition, name)
        if patterns and not _any_like(patterns, *values):
            shown = ", ".join(value or "(empty)" for value in values) or "(none)"
            return f"{name} {shown} is not {' or '.join(patterns)}"
    if condition.not_description and _any_like(condition.not_description, series.description):
        return f"description is among {' or '.join(condition.not_description)}"
    numbers = {
        "slice_thickness_mm": series.slice_thickness_mm,
        "instances": float(series.instances),
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


def choose(rules: Sequence[Rule], series: SeriesFacts) -> Choice:
    """Return the first matching rule's choice for a series.

    Whatever the rules say, only CT storage classes are analysed.
    """
    if not CT_SOP_CLASSES.issuperset(series.sop_class_uids) or not series.sop_class_uids:
        return Choice(model=None, rule=None, destinations=(), why="not a CT image series")
    reasons = []
    for rule in rules:
        reason = mismatch(rule.when, series)
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
