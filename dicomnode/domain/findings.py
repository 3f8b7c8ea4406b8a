"""What was found wrong or noteworthy of a series or its results, and what follows from it.

One mechanism for all checks: a finding has a code, the configuration gives each code an action.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Action = Literal["note", "hold", "refuse"]
"""note: said in the report and in `status`; hold: also, the results wait in the spool until a
person releases the study; refuse: there are no results."""
Severity = Literal["info", "warning", "serious"]
"""info: to be known when a number is read; warning: the result may be wrong in places; serious:
the side or the position of the patient, or all of the result, may be wrong."""
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding."""

    code: str
    """As `domain.content` and `domain.quality` have them."""
    sentence: str
    """What was seen, without patient data."""
    structures: tuple[str, ...] = ()
    """The model's names of what it is about; none: the whole."""
    severity: Severity = "serious"


class Policy(Protocol):
    """What follows from findings."""

    def action(self, code: str) -> Action:
        """Return what is done about a finding."""
        ...


def of_action(findings: Iterable[Finding], policy: Policy, action: Action) -> tuple[Finding, ...]:
    """Return the findings for which the policy has this action."""
    return tuple(finding for finding in findings if policy.action(finding.code) == action)


def once_each(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the most serious first; two checks may see the same one."""
    found = {(one.code, one.sentence): one for one in findings}
    return tuple(sorted(found.values(), key=lambda one: SEVERITIES.index(one.severity)))


def sentences(findings: Sequence[Finding], others: Iterable[str] = ()) -> tuple[str, ...]:
    """Return what is told to people, by weight: others than findings stand before mere infos."""
    heavy = [one.sentence for one in findings if one.severity != "info"]
    return (*heavy, *others, *(one.sentence for one in findings if one.severity == "info"))
