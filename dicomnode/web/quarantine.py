"""What lies in quarantine, for an operator who puts it back or discards it."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from dicomnode.domain.sayings import saying
from dicomnode.services.quarantine import discard, listing, put_back
from dicomnode.spool import RoleIsRunningError
from dicomnode.web.guard import RefusedError
from dicomnode.web.rendering import page
from dicomnode.web.site import Act, Call, Came, Page, Site, Values

Facts = dict[str, Any]
GONE = "Nothing to do: it is not in quarantine."


def kept(site: Site) -> Facts:
    """Return the newest files in quarantine with why they are there, and how many there are."""
    facts = listing(site.spool)
    for one in facts["files"]:
        means = saying(one["code"])
        one["says"], one["todo"] = means.what, means.todo
    return facts


def show(call: Call) -> Response:
    """Show what lies in quarantine."""
    return page(call, "quarantine.html", "Quarantine", facts=kept(call.site))


def answer(call: Call) -> Response:
    """What lies in quarantine, the newest first, and why."""
    return JSONResponse(kept(call.site))


def _put_back(call: Call, values: Values, reason: str) -> Came:
    del reason
    site = call.site
    try:
        came = put_back(site.settings, site.ledger, values["file"], call.user.name)
    except RoleIsRunningError as error:
        raise RefusedError(503, "Another file is being put back. Try again.") from error
    if came is None:
        return Came(count=0, says=GONE)
    if not came.is_gone:
        why = f"{saying(came.code).what} {came.detail} ({came.code})"
        return Came(count=0, says=f"It stays in quarantine: {why}")
    if came.code in ("STORED", "RESTORED"):
        return Came(count=1, says="It is taken in as if it had just come.")
    return Came(count=1, says=f"It is out of quarantine: {came.detail or came.code} ({came.code}).")


def _discard(call: Call, values: Values, reason: str) -> Came:
    site = call.site
    done = discard(site.spool, site.ledger, values["file"], call.user.name, reason)
    return Came(count=int(done), says="It is deleted." if done else GONE)


ACTS: tuple[Act, ...] = (
    Act(
        name="put-back",
        title="Put the file back",
        asks="It is taken in again as if it came now, under the UIDs that its own data set names,"
        " and with the same checks: what is still refused stays in quarantine.",
        needs=("file",),
        do=_put_back,
    ),
    Act(
        name="discard-file",
        title="Discard the file",
        asks="Its bytes are deleted. This cannot be undone; its sender may send it again.",
        needs=("file",),
        reason=True,
        do=_discard,
    ),
)

SHOWN: tuple[Page, ...] = (Page(path="/quarantine", handle=show),)
