"""Who may sign in: one JSON file beside the ledger, read again whenever it has changed.

Passwords are kept as scrypt (RFC 7914) with a salt each, tokens as SHA-256: they are random, and
need no slow hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dicomnode.domain.page import UserRole
from dicomnode.errors import DicomnodeError

N, R, P = 1 << 15, 8, 1
"""scrypt's cost: 32 MB and about 0.1 s a try."""
MEMORY = 64 << 20
LEAST_PASSWORD = 10
MOST_PASSWORD = 1024
NAME = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"


class UsersError(DicomnodeError):
    """The file of users cannot be used, or does not allow what is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A secret with which a program comes in a user's name."""

    id: str
    sha256: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may sign in."""

    role: UserRole
    password: str | None = None
    """`scrypt$n$r$p$salt$hash`; None: a reverse proxy signs in, or tokens only."""
    revision: str
    """Changes with the password: sessions of another one are over."""
    tokens: tuple[Token, ...] = ()


Table = Mapping[str, User]
_ADAPTER: TypeAdapter[dict[str, User]] = TypeAdapter(dict[str, User])


def hash_password(password: str) -> str:
    """Return what is kept of a password."""
    salt = secrets.token_bytes(16)
    made = _scrypt(password, salt, N, R, P)
    return f"scrypt${N}${R}${P}${salt.hex()}${made.hex()}"


def is_password(kept: str | None, given: str) -> bool:
    """Whether a password is the one that is kept; takes as long where none is."""
    kind, n, r, p, salt, expected = (kept or _NOBODY).split("$")
    if kind != "scrypt":
        raise UsersError(f"a password is kept as {kind!r}, which is unknown here")
    made = _scrypt(given, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(made.hex(), expected) and kept is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=MEMORY, dklen=32)


_NOBODY = f"scrypt${N}${R}${P}${'00' * 16}${'00' * 32}"


class Users:
    """The file of users.

    Args:
        path: of it; missing means that there is nobody.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._table: Table = {}

    def table(self) -> Table:
        """Return all users by name.

        Raises:
            UsersError: the file is not readable, or not what it should be.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._table = None, {}
            return self._table
        except OSError as error:
            raise UsersError(f"{self._path}: {error.strerror}") from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            try:
                self._table = _ADAPTER.validate_json(self._path.read_bytes())
            except (OSError, ValidationError) as error:
                # Never the file's text itself: there are hashes in it.
                raise UsersError(f"{self._path}: is no file of users") from error
            self._stamp = stamp
        return self._table

    def signed_in(self, name: str, password: str) -> User | None:
        """Return the user if the password is right."""
        user = self.table().get(name)
        right = is_password(user.password if user else None, password[:MOST_PASSWORD])
        return user if right else None

    def by_token(self, secret: str) -> tuple[str, User] | None:
        """Return whose token a secret is, unless it has expired."""
        given = _digest(secret)
        for name, user in self.table().items():
            for token in user.tokens:
                if hmac.compare_digest(token.sha256, given):
                    return (name, user) if token.expires_at > datetime.now(UTC) else None
        return None

    def add(self, name: str, role: UserRole, password: str | None) -> None:
        """Add a user.

        Raises:
            UsersError: the name is taken or none, or the password is too short.
        """
        if not re.fullmatch(NAME, name):
            raise UsersError("a user's name has 1 to 64 letters, digits and . _ @ -")
        kept = _kept(password)
        with self._changed() as table:
            if name in table:
                raise UsersError(f"there is a user {name!r} already")
            table[name] = User(role=role, password=kept, revision=secrets.token_hex(8))

    def remove(self, name: str) -> None:
        """Remove a user; sessions and tokens end at once."""
        with self._changed() as table:
            _known(table, name)
            del table[name]

    def set_password(self, name: str, password: str) -> None:
        """Give a user a password; the sessions before end at once."""
        kept = _kept(password)
        with self._changed() as table:
            user = _known(table, name)
            table[name] = replace(user, password=kept, revision=secrets.token_hex(8))

    def add_token(self, name: str, days: float) -> str:
        """Return a new token of a user; it is shown once and not kept."""
        secret = "dicomnode_" + secrets.token_urlsafe(32)
        now = datetime.now(UTC)
        token = Token(
            id=secrets.token_hex(4),
            sha256=_digest(secret),
            created_at=now,
            expires_at=now + timedelta(days=days),
        )
        with self._changed() as table:
            user = _known(table, name)
            table[name] = replace(user, tokens=(*user.tokens, token))
        return secret

    def revoke_token(self, name: str, token_id: str) -> None:
        """Take a token back."""
        with self._changed() as table:
            user = _known(table, name)
            left = tuple(token for token in user.tokens if token.id != token_id)
            if len(left) == len(user.tokens):
                raise UsersError(f"{name} has no token {token_id!r}")
            table[name] = replace(user, tokens=left)

    @contextmanager
    def _changed(self) -> Iterator[dict[str, User]]:
        """Yield the table to change; it is written whole, for its owner's eyes only."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._path.with_name(f".{self._path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                table = dict(self.table())
                yield table
                _write(self._path, _ADAPTER.dump_python(table, mode="json"))
        except OSError as error:
            raise UsersError(f"{self._path}: {error.strerror}") from error


def _write(path: Path, document: object) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(document, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _kept(password: str | None) -> str | None:
    if password is None:
        return None
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise UsersError(f"a password has {LEAST_PASSWORD} to {MOST_PASSWORD} characters")
    return hash_password(password)


def _known(table: Table, name: str) -> User:
    if name not in table:
        raise UsersError(f"there is no user {name!r}")
    return table[name]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
