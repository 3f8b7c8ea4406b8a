"""`dicomnode users`: who may sign in at the operator's page, and the tokens of programs."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dicomnode.commands.common import AsJson, out, say, tell
from dicomnode.domain.page import UserRole
from dicomnode.errors import SettingsError
from dicomnode.settings import Settings, load
from dicomnode.shapes import User, UserAct
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


def _done(config: Path | None, facts: UserAct, text: str, *, as_json: bool) -> None:
    _audit(load(config), facts)
    if as_json:
        say(facts)
    else:
        tell(text)


def _audit(settings: Settings, facts: UserAct) -> None:
    """Put it into the audit trail, where there is one."""
    if not settings.audit.room:
        return
    from dicomnode.ledger import Ledger, outbox
    from dicomnode.ledger.schema import upgrade

    ledger = Ledger(settings.ledger_url, settings.node.id, audit_room=settings.audit.room)
    upgrade(ledger)
    # Never all of the facts: a token is one of them.
    detail = f"{facts['name']}: {facts['act']} {facts.get('role', '')}".rstrip()
    outbox.record_now(ledger, "USER_CHANGED", by=getpass.getuser(), detail=detail)
    ledger.close()


@app.command()
def add(
    name: Name,
    role: Annotated[UserRole, typer.Option(help="viewer looks, operator acts as well.")] = "viewer",
    password_stdin: Stdin = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="A reverse proxy signs in, or tokens only.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add a user.

    For example: dicomnode users add vera --role operator -c dicomnode.yaml
    """
    password = None if no_password else _password(from_stdin=password_stdin)
    _users(config).add(name, role, password)
    _done(config, {"name": name, "act": "added", "role": role}, f"{name}: {role}", as_json=as_json)


@app.command()
def remove(name: Name, config: Config = None, as_json: AsJson = False) -> None:
    """Remove a user; sessions and tokens end at once.

    For example: dicomnode users remove vera -c dicomnode.yaml
    """
    _users(config).remove(name)
    _done(config, {"name": name, "act": "removed"}, f"{name}: removed", as_json=as_json)


@app.command()
def passwd(
    name: Name, password_stdin: Stdin = False, config: Config = None, as_json: AsJson = False
) -> None:
    """Give a user a new password; the sessions before end at once.

    For example: dicomnode users passwd vera -c dicomnode.yaml
    """
    users = _users(config)
    users.set_password(name, _password(from_stdin=password_stdin))
    _done(config, {"name": name, "act": "changed"}, f"{name}: changed", as_json=as_json)


@app.command()
def token(
    name: Name,
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="Until it expires.")] = 365.0,
    revoke: Annotated[
        str | None, typer.Option(metavar="ID", help="Take this token back instead.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a token with which a program comes in a user's name; it is shown once.

    For example: dicomnode users token prometheus --days 365 -c dicomnode.yaml
    """
    users = _users(config)
    if revoke is not None:
        users.revoke_token(name, revoke)
        said = f"{name}: token {revoke} revoked"
        _done(config, {"name": name, "act": "revoked"}, said, as_json=as_json)
        return
    made = users.add_token(name, days)
    _done(config, {"name": name, "act": "made", "token": made}, made, as_json=as_json)


@app.command("list")
def list_users(
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List users, their roles and tokens.

    For example: dicomnode users list --json -c dicomnode.yaml
    """
    rows: list[User] = [
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
