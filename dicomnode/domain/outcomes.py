"""What an attempt came to: a value, not an exception. And how long to wait before the next one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Done:
    """It is done; `warning` says what was not as it should be."""

    code: str = "DONE"
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Do the same again later: the fault may pass by itself."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Doing it again would end the same way: a person has to look."""

    code: str
    detail: str


Outcome = Done | Retry | Refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential waiting with full jitter below a ceiling.

    The wait before attempt n+1 lies between half and the whole of first * 2**(n-1), never above
    `ceiling_seconds`: it never falls to nothing, and senders that failed together part.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    first_seconds: float = 5.0
    ceiling_seconds: float = 900.0

    def __post_init__(self) -> None:
        for name in ("first_seconds", "ceiling_seconds"):
            if not 0 < getattr(self, name) <= 86400:
                raise ValueError(f"{name} must be more than 0 and at most 86400 seconds")

    def after(self, attempt: int, jitter: float) -> timedelta:
        """Return the wait after failed attempt number `attempt` (from 1).

        Args:
            attempt: how many attempts have failed.
            jitter: a random number in [0, 1), the caller's.
        """
        exponent = min(max(attempt, 1) - 1, 30)
        whole = min(self.first_seconds * 2.0**exponent, self.ceiling_seconds)
        return timedelta(seconds=whole * (0.5 + 0.5 * jitter))


OUT_OF_RESOURCES = 0xA700
NOT_AUTHORIZED = 0x0124
SOP_CLASS_NOT_SUPPORTED = 0x0122
PROCESSING_FAILURE = 0x0110
COERCED = 0xB000


def classify_action_status(status: int, detail: str) -> Retry | Refuse:
    """Say what an N-ACTION response's status other than Success means (PS3.7 10.1.4)."""
    again = status in (PROCESSING_FAILURE, 0x0213) or 0xA700 <= status <= 0xA7FF
    return (Retry if again else Refuse)(f"STATUS_{status:04X}", detail)


def classify_store_status(status: int) -> Outcome:
    """Say what a C-STORE response's status means for the delivery (PS3.4 B.2.3, PS3.7 annex C)."""
    if status == 0x0000:
        return Done()
    if status == COERCED:
        return Done("COERCED", "the archive changed data elements of the result")
    if 0xB000 <= status <= 0xBFFF or status in (0x0001, 0x0107, 0x0116):
        return Done("STORED_WITH_WARNING", f"the archive stored with warning 0x{status:04X}")
    if 0xA700 <= status <= 0xA7FF or status == PROCESSING_FAILURE:
        return Retry(f"STATUS_{status:04X}", "the archive is out of resources or failed")
    if status == SOP_CLASS_NOT_SUPPORTED:
        return Refuse("SOP_CLASS_NOT_SUPPORTED", "the archive does not store this SOP class")
    if status == NOT_AUTHORIZED:
        return Refuse("NOT_AUTHORIZED", "the archive does not authorise this node to store")
    return Refuse(f"STATUS_{status:04X}", "the archive refused the object")
