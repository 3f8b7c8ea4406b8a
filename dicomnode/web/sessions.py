"""Sessions in signed cookies, tokens against forged requests, and a limit on tries to sign in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from itsdangerous import BadData, URLSafeTimedSerializer

COOKIE = "dicomnode_session"
BEFORE = "dicomnode_before"
"""Before anybody has signed in: what the form's token belongs to."""
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A browser in which somebody has signed in."""

    id: str
    user: str
    revision: str
    """Of the user when the session began."""


class Sessions:
    """Makes and reads cookies; a session that was left is remembered until it would have ended.

    Args:
        key: signs.
        seconds: how long a session lasts.
    """

    def __init__(self, key: bytes, seconds: float) -> None:
        self._key = key
        self.seconds = int(seconds)
        options = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        self._signer = URLSafeTimedSerializer(key, salt="session", signer_kwargs=options)
        self._left: dict[str, float] = {}
        self._lock = Lock()

    def begin(self, user: str, revision: str) -> str:
        """Return the cookie of a new session."""
        return str(self._signer.dumps([secrets.token_urlsafe(18), user, revision]))

    def read(self, cookie: str | None) -> Session | None:
        """Return the session of a cookie, if it is ours, not too old and was not left."""
        if not cookie or len(cookie) > 1024:
            return None
        try:
            values = self._signer.loads(cookie, max_age=self.seconds)
        except BadData:
            return None
        session = Session(id=values[0], user=values[1], revision=values[2])
        with self._lock:
            return None if session.id in self._left else session

    def leave(self, session: Session) -> None:
        """End a session, in whatever browser its cookie is."""
        now = time.monotonic()
        with self._lock:
            self._left = {one: end for one, end in self._left.items() if end > now}
            self._left[session.id] = now + self.seconds

    def form_token(self, of: str) -> str:
        """Return what a form has to bring along: only our own pages know it."""
        return hmac.new(self._key, b"form:" + of.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, of: str, given: str) -> bool:
        """Whether a form came from one of our pages."""
        return hmac.compare_digest(self.form_token(of).encode(), given.encode("utf-8", "replace"))


class Limiter:
    """At most so many tries in a span of time, for each key.

    Args:
        tries: that may fail.
        seconds: of the span.
        clock: in seconds.
    """

    def __init__(
        self, tries: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tries = tries
        self.seconds = seconds
        self._clock = clock
        self._failed: dict[str, deque[float]] = {}
        self._lock = Lock()

    def is_open(self, key: str) -> bool:
        """Whether another try is allowed."""
        with self._lock:
            return len(self._recent(key)) < self._tries

    def failed(self, key: str) -> None:
        """Count a try that failed."""
        with self._lock:
            if len(self._failed) >= MOST_REMEMBERED:
                self._failed = {one: found for one in list(self._failed)
                                if (found := self._recent(one))}  # fmt: skip
            if key in self._failed or len(self._failed) < MOST_REMEMBERED:
                self._failed.setdefault(key, deque(maxlen=self._tries)).append(self._clock())

    def _recent(self, key: str) -> deque[float]:
        found = self._failed.get(key, deque())
        while found and found[0] <= self._clock() - self.seconds:
            found.popleft()
        return found
