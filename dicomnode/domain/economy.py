"""What is done with less after an analysis ran out of memory or time, and how that is said.

Labels may come out otherwise than by the first plan, within the bounds of the engines; another
model is taken only where the configuration names it. Whatever was changed is a finding of the
result: never silently another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicomnode.domain.findings import Finding

MEMORY_SHORT = frozenset({"OUT_OF_MEMORY", "WORKER_OUT_OF_MEMORY"})
TIME_SHORT = frozenset({"TIMEOUT"})
SHORTAGES = MEMORY_SHORT | TIME_SHORT
"""Codes of attempts after which the same again would end the same way."""
SMALLER_PLAN = "SMALLER_PLAN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Economy:
    """How an analysis is run, where it was short of something before."""

    model_id: str
    threads: int | None
    """None leaves them to the library."""
    thrifty: bool = False
    """Take as little memory as there is a way for, in a process of its own."""
    sentence: str = ""
    """What was changed and why, for people; empty: nothing."""

    def finding(self) -> Finding:
        """Return what the result says of it."""
        return Finding(code=SMALLER_PLAN, sentence=self.sentence, severity="warning")


def economise(
    shortages: Sequence[str],
    *,
    model_id: str,
    threads: int | None,
    processors: int,
    smaller_models: Mapping[str, str],
) -> Economy:
    """Return the plan that is left after attempts that were short of memory or time.

    Memory: the thrifty way and, for each time, a thread less; when that did not suffice either, the
    smaller model. Time: nothing makes an analysis quicker and leaves its result alone, and the
    thrifty way is slower, so the smaller model is taken at once. Where none is configured, the same
    is tried again: the machine may have been busy with something else.

    Args:
        shortages: codes of the attempts before, of `SHORTAGES`.
        model_id: of the job.
        threads: as configured; None: one a processor.
        processors: that this process may use.
        smaller_models: model -> the one to take where it is too large.
    """
    said = []
    short = sum(code in MEMORY_SHORT for code in shortages)
    if short:
        said.append("the thrifty way of the engine")
        before = threads or processors
        threads = max(1, before - short)
        if threads < before:
            said.append(f"{threads} of {before} threads")
    wants_smaller = short > 1 or not TIME_SHORT.isdisjoint(shortages)
    smaller = smaller_models.get(model_id) if wants_smaller else None
    if smaller is not None:
        said.append(f"the model {smaller} instead of {model_id}")
    if not said:
        return Economy(model_id=model_id, threads=threads)
    lacking = " and ".join(
        name
        for name, codes in (("memory", MEMORY_SHORT), ("time", TIME_SHORT))
        if not codes.isdisjoint(shortages)
    )
    return Economy(
        model_id=smaller or model_id,
        threads=threads,
        thrifty=short > 0,
        sentence=f"For lack of {lacking} analysed with less: {', '.join(said)}.",
    )
