"""What every request works with, and what a request is once its sender is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment
from starlette.responses import Response

from dicomnode.ledger import Ledger
from dicomnode.settings import Settings
from dicomnode.spool import Spool
from dicomnode.users import Users
from dicomnode.web.sessions import Limiter, Session, Sessions
from dicomnode.web.viewing import Viewings

if TYPE_CHECKING:
    from dicomnode.web.fetching import Fetcher
    from dicomnode.web.metrics import Metrics

TRIES, TRY_SECONDS = 5, 300.0
"""To sign in that may fail: for a user from one address."""
TRIES_OF_ADDRESS = 30


@dataclass(slots=True, kw_only=True)
class Site:
    """What every request works with."""

    settings: Settings
    """Others after a reload."""
    ledger: Ledger
    spool: Spool
    users: Users
    sessions: Sessions
    templates: Environment
    metrics: Metrics
    fetcher: Fetcher
    viewings: Viewings = field(default_factory=Viewings)
    tries: Limiter = field(default_factory=lambda: Limiter(TRIES, TRY_SECONDS))
    tries_of_address: Limiter = field(
        default_factory=lambda: Limiter(TRIES_OF_ADDRESS, TRY_SECONDS)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who sent a request."""

    name: str
    role: str
    form_key: str | None
    """What the tokens of forms belong to; None: came with a token, needs no form's."""
    session: Session | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose sender is known and may do this."""

    site: Site
    who: Who | None
    address: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str]
    before: str
    """Value of the cookie that a browser has before anybody has signed in."""
    wants_page: bool = True

    @property
    def user(self) -> Who:
        """Who sent it, on routes that nobody else reaches."""
        if self.who is None:
            raise RuntimeError("this route is open, and nobody has signed in")
        return self.who


Handler = Callable[[Call], Response]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A route: what answers it, and who may ask."""

    path: str
    handle: Handler
    method: str = "GET"
    role: str | None = "viewer"
    """Least role of who may ask; None: anybody may."""
    is_api: bool = False
    """Answers with JSON, faults too."""


Values = Mapping[str, str]
"""What an act is done to, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """What an act came to."""

    count: int
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that an operator may do."""

    name: str
    title: str
    asks: str
    """What follows from it."""
    needs: tuple[str, ...]
    """Names of what it is done to."""
    may_have: tuple[str, ...] = ()
    reason: bool = False
    """A reason has to be given."""
    do: Callable[[Call, Values, str], Came]


STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"
