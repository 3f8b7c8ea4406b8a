"""When is a study complete? A study closes when it and each of its series have been quiet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class AssemblyPolicy:
    """How long nothing may come before a study counts as complete."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    study_quiet_seconds: float = 60.0
    """Since the last instance of the study, of whatever series."""
    series_quiet_seconds: float = 60.0
    """Since the last instance of each single series; matters where it is the longer one."""

    def __post_init__(self) -> None:
        for name in ("study_quiet_seconds", "series_quiet_seconds"):
            value = getattr(self, name)
            if not 0 < value <= 86400:
                raise ValueError(f"{name} must be more than 0 and at most 86400 seconds")


def closes_at(
    study_last_at: datetime, series_last_at: Iterable[datetime], policy: AssemblyPolicy
) -> datetime:
    """Return when the study closes if nothing more comes (UTC)."""
    study = study_last_at + timedelta(seconds=policy.study_quiet_seconds)
    quiet = timedelta(seconds=policy.series_quiet_seconds)
    return max([study, *(last + quiet for last in series_last_at)])
