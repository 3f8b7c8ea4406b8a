"""Where results go, and when: what the configuration says of a destination, and what follows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import PurePath
from typing import ClassVar, Literal

from dicomnode.domain.outcomes import Refuse
from dicomnode.domain.plans import FILES
from dicomnode.domain.profiles import PROFILES, in_order
from dicomnode.domain.web import Web, check_web


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day; it may go past midnight."""

    start: time
    end: time

    def contains(self, local: time) -> bool:
        """Whether a time of day lies in it; its end does not."""
        if self.start < self.end:
            return self.start <= local < self.end
        return local >= self.start or local < self.end


def parse_window(text: str) -> Window:
    """Return the window that a text such as `20:00-06:00` means.

    Raises:
        ValueError: it means none.
    """
    found = re.fullmatch(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)", text.strip())
    if found is None:
        raise ValueError("expected two times of day, as in 20:00-06:00")
    hours, minutes, until_hours, until_minutes = map(int, found.groups())
    try:
        window = Window(time(hours, minutes), time(until_hours, until_minutes))
    except ValueError as error:
        raise ValueError(f"no time of day: {error}") from error
    if window.start == window.end:
        raise ValueError("a window begins and ends at different times; leave it out for all day")
    return window


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where results go."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    peer: str | None = None
    stow_url: str | None = None
    """A DICOMweb service that takes results by STOW-RS, in place of a peer's C-STORE."""
    stow_token: str | None = None
    """env:NAME or file:PATH; likewise user and password."""
    stow_user: str | None = None
    stow_password: str | None = None
    stow_ca: str | None = None
    folder: str | None = None
    """Absolute path of a folder of this machine, in place of a peer."""
    profile: Literal["pacs", "modern", "pictures", "rtstruct", "research"] = "pacs"
    """Which objects it gets."""
    objects: tuple[str, ...] = ()
    """The objects themselves; a profile then says nothing."""
    kind: Literal["clinical", "research", "mixed"] = "mixed"
    """clinical: never gets what is de-identified; research: nothing else; mixed: both."""
    iocm: bool = False
    """It honours rejection notes: what is superseded or withdrawn is withdrawn there by one."""
    allow_demo: bool = False
    """Results of demonstration models may go there although it is not this machine."""
    compare_identity: bool = True
    """Ask whose the study is before sending, where its peer may be asked."""
    commitment: Literal["off", "wanted", "required", False] = "off"
    """Ask it for storage commitment; required: the input is kept until it has committed."""
    window: str | None = None
    """Hours of the day in which it is sent to, in this machine's time; None: all day."""
    max_mbit_per_second: float | None = None
    deliver_within_minutes: float | None = None
    """After the last image of the series; what is later needs attention."""

    def __post_init__(self) -> None:
        if self.peer is None and self.stow_url is None and self.folder is None:
            raise ValueError("@.peer: name a peer, or stow_url, or folder")
        if self.web is not None:
            try:
                check_web(self.web)
            except ValueError as error:
                raise ValueError(f"@.{error}") from error
            if self.wants_commitment:
                raise ValueError("@.commitment: STOW-RS has none")
        elif any((self.stow_token, self.stow_user, self.stow_password, self.stow_ca)):
            raise ValueError("@.stow_url: is missing")
        if self.objects:
            _told("objects", in_order, self.objects)
        self._check_folder()
        if self.window is not None:
            _told("window", parse_window, self.window)
        for name, most in (("max_mbit_per_second", 1e6), ("deliver_within_minutes", 1e5)):
            value = getattr(self, name)
            if value is not None and not 0 < value <= most:
                raise ValueError(f"@.{name}: must be more than 0 and at most {most:g}")

    def _check_folder(self) -> None:
        if self.folder is None:
            kinds = sorted(set(self.takes) & set(FILES))
            if kinds:
                raise ValueError(f"@.objects: {', '.join(kinds)}: no DICOM; for a folder only")
            return
        if not PurePath(self.folder).is_absolute():
            raise ValueError("@.folder: expected an absolute path")
        if self.peer is not None or self.stow_url is not None:
            raise ValueError("@.folder: in place of peer and stow_url, and not beside them")
        if self.iocm:
            raise ValueError("@.iocm: a folder takes no rejection notes")
        if self.wants_commitment:
            raise ValueError("@.commitment: a folder gives none")

    @property
    def takes(self) -> tuple[str, ...]:
        """Kinds of objects that it gets, in the order in which they are sent."""
        return in_order(self.objects) if self.objects else PROFILES[self.profile]

    @property
    def web(self) -> Web | None:
        """The DICOMweb service that results go to, if it is one."""
        if self.stow_url is None:
            return None
        return Web(
            url=self.stow_url,
            token=self.stow_token,
            user=self.stow_user,
            password=self.stow_password,
            ca=self.stow_ca,
        )

    @property
    def wants_commitment(self) -> bool:
        """Whether it is asked for storage commitment; YAML reads a plain `off` as false."""
        return self.commitment not in ("off", False)

    def is_open(self, now: datetime) -> bool:
        """Whether it may be sent to now.

        Args:
            now: in the time zone in which the window is meant.
        """
        return self.window is None or parse_window(self.window).contains(now.time())


def _told(key: str, check: object, value: object) -> None:
    try:
        check(value)  # type: ignore[operator]
    except ValueError as error:
        raise ValueError(f"@.{key}: {error}") from error


def may_go(kind: str, *, is_deidentified: bool) -> Refuse | None:
    """Say why a result may not go to a destination of a kind, or None if it may.

    Args:
        kind: clinical, research, or mixed, which takes both.
        is_deidentified: Patient Identity Removed (0012,0062) is YES (PS3.3 C.7.1.1).
    """
    if kind == "clinical" and is_deidentified:
        detail = "the images are de-identified, and the destination is clinical"
        return Refuse("DEIDENTIFIED_TO_CLINICAL", detail)
    if kind == "research" and not is_deidentified:
        detail = "the images are not de-identified, and the destination is for research"
        return Refuse("IDENTIFIED_TO_RESEARCH", detail)
    return None
