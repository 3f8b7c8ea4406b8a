"""`dicomnode users`: who may sign in at the operator's page, and the tokens of programs."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from dicomnode.commands.common import AsJson, out, say
from dicomnode.domain.page import UserRole
from dicomnode.errors import SettingsError
from dicomnode.settings import load
from dicomnode.users import Users

app = typer.Typer(help="Who may sign in at the operator's page.", no_args_is_help=True)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML configuration; default: as everywhere."),
]
Name = Annotated[str, typer.Argument(help="The user's name.")]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]


def _users(config: Path | None) -> Users:
    return Users(load(config).users_file)


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    first = getpass.getpass("Password: ")
    if first != getpass.getpass("Once more: "):
        raise SettingsError("the two passwords differ")
    return first


@app.command()
def add(
    name: Name,
    role: Annotated[UserRole, typer.Option(help="viewer looks, operator acts as well.")] = "viewer",
    password_stdin: Stdin = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="A reverse proxy signs in, or tokens only.")
    ] = False,
    config: Config = None,
) -> None:
    """Add a user."""
    password = None if no_password else _password(from_stdin=password_stdin)
    _users(config).add(name, role, password)
    out.print(f"{name}: {role}", highlight=False)


@app.command()
def remove(name: Name, config: Config = None) -> None:
    """Remove a user; sessions and tokens end at once."""
    _users(config).remove(name)
    out.print(f"{name}: removed", highlight=False)


@app.command()
def passwd(name: Name, password_stdin: Stdin = False, config: Config = None) -> None:
    """Give a user a new password; the sessions before end at once."""
    users = _users(config)
    users.set_password(name, _password(from_stdin=password_stdin))
    out.print(f"{name}: changed", highlight=False)


@app.command()
def token(
    name: Name,
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="Until it expires.")] = 365.0,
    revoke: Annotated[
        str | None, typer.Option(metavar="ID", help="Take this token back instead.")
    ] = None,
    config: Config = None,
) -> None:
    """Make a token with which a program comes in a user's name; it is shown once."""
    users = _users(config)
    if revoke is not None:
        users.revoke_token(name, revoke)
        out.print(f"{name}: token {revoke} revoked", highlight=False)
        return
    out.print(users.add_token(name, days), highlight=False, soft_wrap=True)


@app.command("list")
def list_users(
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List users, their roles and tokens."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "role": user.role,
            "password": user.password is not None,
            "tokens": [
                {"id": one.id, "expires_at": one.expires_at.isoformat()} for one in user.tokens
            ],
        }
        for name, user in sorted(_users(config).table().items())
    ]
    if as_json:
        say(rows)
        return
    table = Table(box=None, pad_edge=False)
    for head in ("user", "role", "password", "tokens"):
        table.add_column(head)
    for row in rows:
        tokens = ", ".join(f"{one['id']} until {one['expires_at'][:10]}" for one in row["tokens"])
        table.add_row(row["name"], row["role"], "yes" if row["password"] else "no", tokens)
    out.print(table)
