"""Why results are withdrawn, and with which code a rejection note says so. A table and no more.

Codes are Document Titles of Key Object Selections that reject (PS3.16 CID 7010; IHE RAD TF,
Imaging Object Change Management). What an archive has to do differs: rejected for quality, objects
may be shown to those who ask for them; rejected for the patient's safety, they must not be.

A result that a later one replaces is not dangerous, it lacks a slice: that is quality. What a
person withdraws is not to be seen unless the person says that only its quality is poor. Results
of images that were rejected are rejected with the images' own code: they are wrong as those are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

SUPERSEDED = "SUPERSEDED"
WITHDRAWN = "WITHDRAWN"
WITHDRAWN_FOR_QUALITY = "WITHDRAWN_FOR_QUALITY"

QUALITY = "113001"
SAFETY = "113037"
TITLES: Mapping[str, str] = MappingProxyType(
    {
        QUALITY: "Rejected for Quality Reasons",
        SAFETY: "Rejected for Patient Safety Reasons",
        "113038": "Incorrect Modality Worklist Entry",
        "113039": "Data Retention Policy Expired",
    }
)
"""Code of DCM -> its meaning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What a rejection note says."""

    code: str
    """Of `TITLES`."""
    sentence: str


_REASONS: Mapping[str, Why] = MappingProxyType(
    {
        SUPERSEDED: Why(
            code=QUALITY,
            sentence="Images came after the analysis: other results replace these.",
        ),
        WITHDRAWN: Why(
            code=SAFETY,
            sentence="A person who operates the node withdraws these results.",
        ),
        WITHDRAWN_FOR_QUALITY: Why(
            code=QUALITY,
            sentence="A person who operates the node withdraws these results for their quality.",
        ),
        **{
            f"REJECTED_{code}": Why(
                code=code,
                sentence=f"These results, or the images that they were made of, were rejected:"
                f" {meaning}.",
            )
            for code, meaning in TITLES.items()
        },
    }
)


def why(reason: str) -> Why:
    """Return what a note says of results that the ledger marks with this reason."""
    return _REASONS[reason]
