"""What an operator may do: each asks first, leaves an event with a name, is safe to repeat."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from starlette.responses import JSONResponse, Response

from dicomnode.domain.choosing import choose_alone
from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.domain.withdrawal import WITHDRAWN
from dicomnode.errors import PurgedError, SettingsError
from dicomnode.ledger import Transaction, actions, fetches, steering, strangers, withdrawals
from dicomnode.ledger.choosing import analyze_by_hand
from dicomnode.services import fetch as fetch_service
from dicomnode.services.quarantine import NAMES
from dicomnode.settings import Settings
from dicomnode.web.fetching import Wish
from dicomnode.web.guard import RefusedError
from dicomnode.web.peers import ACTS as ACTS_OF_PEERS
from dicomnode.web.quarantine import ACTS as ACTS_OF_QUARANTINE
from dicomnode.web.rendering import page
from dicomnode.web.site import Act, Call, Came, Page, Values

MOST_REASON = 500
MOST_EVENTS = 1000
BIGGEST_ID = 2**63 - 1

Change = Callable[[Transaction, Values, str, str], int]


def _in_ledger(change: Change, done: str) -> Callable[[Call, Values, str], Came]:
    def do(call: Call, values: Values, reason: str) -> Came:
        try:
            with call.site.ledger.transaction() as tx:
                count = int(change(tx, values, call.user.name, reason))
        except PurgedError as error:
            return Came(count=0, says=f"It cannot be done any more: {error}.")
        return Came(count=count, says=done if count else "Nothing to do: it was so already.")

    return do


def _acknowledge(tx: Transaction, values: Values, who: str, _reason: str) -> int:
    ids = tuple(int(one) for one in values["events"].split(","))
    return actions.acknowledge(tx, ids, who)


def _fetch(call: Call, values: Values, reason: str) -> Came:
    del reason
    uid, peer = values["study"], values.get("peer") or None
    try:
        fetch_service.sources(call.site.settings, peer)
    except SettingsError as error:
        raise RefusedError(422, str(error)) from error
    with call.site.ledger.looking() as tx:
        is_under_way = fetches.is_under_way(tx, uid)
    wish = Wish(study_uid=uid, peer=peer, who=call.user.name)
    if is_under_way or not call.site.fetcher.ask(wish):
        return Came(count=0, says="Nothing to do: it is being fetched.")
    with call.site.ledger.transaction() as tx:
        from_whom = f" from {peer}" if peer else ""
        tx.event(
            "FETCH_REQUESTED", detail=f"{uid}{from_whom} by {call.user.name}", by=call.user.name
        )
    return Came(count=1, says="It is being fetched. The list of studies shows when it comes.")


def _withdraw(call: Call, values: Values, reason: str) -> Came:
    job = values.get("job")
    with call.site.ledger.transaction() as tx:
        count = withdrawals.withdraw(
            tx,
            values["study"],
            job_id=int(job) if job else None,
            who=call.user.name,
            why=reason,
            reason=WITHDRAWN,
            by_note=call.site.settings.by_note,
        )
    done = f"{count} results are withdrawn; who takes no rejection notes stands under attention."
    return Came(count=count, says=done if count else "Nothing to do: it was so already.")


def _analyze(call: Call, values: Values, reason: str) -> Came:
    del reason
    settings = call.site.settings
    with call.site.ledger.transaction() as tx:
        verdict = analyze_by_hand(
            tx,
            values["series"],
            lambda facts: choose_alone(settings.rules, settings.choosing, facts),
            call.user.name,
        )
    if verdict is None:
        return Came(count=0, says="Nothing to do: it was so already.")
    if not verdict.is_chosen:
        return Came(count=0, says=f"It cannot be analysed: {verdict.why} ({verdict.code}).")
    return Came(count=1, says="It is queued.")


ACTS: tuple[Act, ...] = (
    Act(
        name="requeue-job",
        title="Analyse again",
        asks="The series is analysed once more, with a new count of failures.",
        needs=("job",),
        do=_in_ledger(
            lambda tx, v, who, _: actions.requeue_job(tx, int(v["job"]), who), "It is queued."
        ),
    ),
    Act(
        name="cancel-job",
        title="Cancel the analysis",
        asks="It is stopped for good: this series in its present state is not analysed any more.",
        needs=("job",),
        reason=True,
        do=_in_ledger(
            lambda tx, v, who, why: steering.cancel_job(tx, int(v["job"]), who, why),
            "It is cancelled.",
        ),
    ),
    Act(
        name="requeue-delivery",
        title="Send again",
        asks="The object is sent once more, and what was refused with it.",
        needs=("delivery",),
        do=_in_ledger(
            lambda tx, v, who, _: actions.requeue_delivery(tx, int(v["delivery"]), who),
            "It is due.",
        ),
    ),
    Act(
        name="send-again",
        title="Send the results again",
        asks="What arrived at the destination and what it refused is sent once more.",
        needs=("job", "destination"),
        do=_in_ledger(
            lambda tx, v, who, _: steering.send_again(tx, int(v["job"]), v["destination"], who),
            "They are due.",
        ),
    ),
    Act(
        name="cancel-deliveries",
        title="Cancel what has not arrived",
        asks="What has not arrived at the destination is never sent to it.",
        needs=("job", "destination"),
        reason=True,
        do=_in_ledger(
            lambda tx, v, who, why: steering.cancel_deliveries(
                tx, int(v["job"]), v["destination"], who, why
            ),
            "They are cancelled.",
        ),
    ),
    Act(
        name="release-study",
        title="Release the study",
        asks="The study goes on: it is analysed, and its results are sent, under the patient of its"
        " first images.",
        needs=("study",),
        reason=True,
        do=_in_ledger(
            lambda tx, v, who, why: actions.release_study(tx, v["study"], who, why),
            "It is released.",
        ),
    ),
    Act(
        name="withdraw-results",
        title="Withdraw the results",
        asks="What has not arrived is stopped, and archives that take rejection notes are told not"
        " to show what has. This cannot be undone.",
        needs=("study",),
        may_have=("job",),
        reason=True,
        do=_withdraw,
    ),
    Act(
        name="analyze-series",
        title="Analyse this series as well",
        asks="It is analysed by the rule that matches it, although another one was chosen: an"
        " archive may then have results of both.",
        needs=("series",),
        do=_analyze,
    ),
    Act(
        name="acknowledge",
        title="Acknowledge",
        asks="It no longer stands on the list of what needs attention. Nothing else changes.",
        needs=("events",),
        do=_in_ledger(_acknowledge, "It is off the list."),
    ),
    Act(
        name="acknowledge-requestor",
        title="Do not list this requestor any more",
        asks="Its tries are counted and not shown; from another address it is listed anew.",
        needs=("ae",),
        do=_in_ledger(
            lambda tx, v, who, _: strangers.acknowledge(tx, v["ae"], who), "It is off the list."
        ),
    ),
    Act(
        name="pause-destination",
        title="Pause the destination",
        asks="Nothing more is sent to it until it is resumed. Results are kept and wait.",
        needs=("destination",),
        reason=True,
        do=_in_ledger(
            lambda tx, v, who, why: steering.pause(tx, v["destination"], who, why), "It is paused."
        ),
    ),
    Act(
        name="resume-destination",
        title="Resume the destination",
        asks="What waits for it is sent.",
        needs=("destination",),
        do=_in_ledger(
            lambda tx, v, who, _: steering.resume(tx, v["destination"], who), "It is resumed."
        ),
    ),
    Act(
        name="fetch-study",
        title="Fetch the study",
        asks="An archive that may be asked is asked for all of it, and it is analysed as if it had"
        " been routed here.",
        needs=("study",),
        may_have=("peer",),
        do=_fetch,
    ),
    *ACTS_OF_PEERS,
    *ACTS_OF_QUARANTINE,
)


def pages_of_acts() -> list[Page]:
    """Return the routes: a page that asks, a form that does it, and the same for programs."""
    found = []
    for act in ACTS:
        found += [
            Page(path=f"/act/{act.name}", handle=_ask(act), role="operator"),
            Page(path=f"/act/{act.name}", handle=_done(act), role="operator", method="POST"),
            Page(
                path=f"/api/act/{act.name}",
                handle=_done(act),
                role="operator",
                method="POST",
                is_api=True,
            ),
        ]
    return found


def values_of(act: Act, given: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return what an act is to be done to.

    Raises:
        RefusedError: something is missing, or is not what it should be.
    """
    found = {}
    for name in (*act.needs, *act.may_have):
        text = given.get(name, "").strip()
        if not text and name in act.may_have:
            continue
        fault = _fault(name, text, settings)
        if fault:
            raise RefusedError(422, f"{name}: {fault}")
        found[name] = text
    return found


def _fault(name: str, text: str, settings: Settings) -> str:
    if name in ("job", "delivery"):
        ok = re.fullmatch(r"[0-9]{1,19}", text) and int(text) <= BIGGEST_ID
        return "" if ok else "expected a number"
    if name == "events":
        parts = text.split(",")
        ok = len(parts) <= MOST_EVENTS and all(
            re.fullmatch(r"[0-9]{1,19}", one) and int(one) <= BIGGEST_ID for one in parts
        )
        return "" if ok else "expected numbers, with commas between"
    if name in ("study", "series"):
        try:
            parse_uid(text)
        except InvalidUIDError:
            return "expected a UID"
        return ""
    if name == "file":
        return "" if NAMES.fullmatch(text) else "expected the name of a file in quarantine"
    if name == "destination":
        return "" if text in settings.destinations else "no destination has this name"
    if name == "peer":
        return "" if text in settings.peers else "no peer has this name"
    return "" if 0 < len(text) <= 16 and text.isprintable() else "expected an AE title"


def _ask(act: Act) -> Callable[[Call], Response]:
    def handle(call: Call) -> Response:
        values = values_of(act, call.query, call.site.settings)
        back = _local(call.query.get("back", "/"))
        return page(call, "ask.html", act.title, act=act, values=values, back=back)

    return handle


def _done(act: Act) -> Callable[[Call], Response]:
    def handle(call: Call) -> Response:
        values = values_of(act, call.form, call.site.settings)
        reason = " ".join(call.form.get("reason", "").split())[:MOST_REASON]
        if act.reason and not reason:
            raise RefusedError(422, "reason: say why; it is recorded with your name.")
        if call.form.get("confirm") != "yes":
            raise RefusedError(422, "confirm: expected yes.")
        came = act.do(call, values, reason)
        if not call.wants_page:
            return JSONResponse({"done": came.count, "says": came.says})
        back = _local(call.form.get("back", "/"))
        return page(call, "done.html", act.title, act=act, came=came, back=back)

    return handle


def _local(path: str) -> str:
    """Return a path of this site, whatever a link says."""
    is_ours = re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", path) and len(path) < 1000
    return path if is_ours else "/"
