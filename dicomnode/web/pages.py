"""The pages that show: overview, studies, one study, its pictures and objects; and signing in."""

from __future__ import annotations

import logging
import mimetypes
import re
from pathlib import Path
from urllib.parse import urlencode

from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response

from dicomnode.domain.identifiers import InvalidUIDError, parse_uid
from dicomnode.ledger import outbox
from dicomnode.ledger import pages as ledger_pages
from dicomnode.web import looks, report
from dicomnode.web.acts import BIGGEST_ID
from dicomnode.web.guard import RefusedError, set_cookie
from dicomnode.web.rendering import page
from dicomnode.web.sessions import COOKIE
from dicomnode.web.site import STATIC, Call, Page, Site

log = logging.getLogger(__name__)

STATES = ("OPEN", "CLOSED", "HELD")
REPORT_KINDS = ("sr",)
MOST_NAME = 256


def overview(call: Call) -> Response:
    """Show whether the node receives, analyses and sends, and what needs a person."""
    facts = looks.overview(call.site)
    most = {
        name: max(1, *(hour[name] for hour in facts["day"]["hours"]))
        for name in ("instances", "jobs", "deliveries")
    }
    return page(call, "overview.html", "Overview", facts=facts, most=most)


def list_of(site: Site, query: dict[str, str]) -> looks.Facts:
    """Return the page of studies that a query asks for.

    Raises:
        RefusedError: the query makes no sense.
        BadPlaceError: neither does its place.
    """
    state, uid = query.get("state", ""), query.get("uid", "").strip()
    limit = query.get("limit", str(ledger_pages.PAGE_ROWS))
    if state not in ("", *STATES):
        raise RefusedError(400, f"state: expected one of {', '.join(STATES)}")
    if uid and not re.fullmatch(r"[0-9.]{1,64}", uid):
        raise RefusedError(400, "uid: expected the begin of a Study Instance UID")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= ledger_pages.MOST_ROWS:
        raise RefusedError(400, f"limit: expected 1 to {ledger_pages.MOST_ROWS}")
    if query.get("attention", "") not in ("", "1"):
        raise RefusedError(400, "attention: expected 1")
    with site.ledger.looking() as tx:
        return ledger_pages.studies(
            tx,
            state=state or None,
            attention=query.get("attention") == "1",
            uid=uid or None,
            after=query.get("after") or None,
            limit=int(limit),
        )


def studies(call: Call) -> Response:
    """Show the studies, the newest first."""
    query = dict(call.query)
    found = list_of(call.site, query)
    kept = {name: query[name] for name in ("state", "uid", "attention") if query.get(name)}
    following = urlencode({**kept, "after": found["next"]}) if found["next"] else ""
    return page(
        call,
        "studies.html",
        "Studies",
        studies=found["studies"],
        following=following,
        query={"state": "", "uid": "", "attention": "", **kept},
        newest=urlencode(kept),
        is_first=not query.get("after"),
        states=STATES,
    )


def study_of(call: Call) -> looks.Facts:
    """Return what is known of the study that a path names.

    Raises:
        RefusedError: it is none, or unknown here.
    """
    try:
        uid = parse_uid(call.path["uid"])
    except InvalidUIDError as error:
        raise RefusedError(404, "This is no Study Instance UID.") from error
    facts = looks.study(call.site, uid)
    if facts is None:
        raise RefusedError(404, "This study is not known here.")
    audit_view(call, uid)
    for job in facts["jobs"]:
        job["has_preview"] = _preview(call.site, job["id"]).is_file()
        job["measurements"] = _measurements(call.site, job)
        for result in job["results"]:
            del result["path"]  # where things lie on the machine is nobody's business
    return facts


def study(call: Call) -> Response:
    """Show a study: its course, its series, what was made of them and where it went."""
    facts = study_of(call)
    patient = None
    if call.site.settings.web.show_patient:
        with call.site.ledger.looking() as tx:
            path = ledger_pages.first_file(tx, facts["study_uid"])
        patient = report.patient(call.site.spool.path(path)) if path else None
    return page(call, "study.html", "Study", facts=facts, patient=patient)


def _preview(site: Site, job_id: int) -> Path:
    return site.spool.path(site.spool.result_path(job_id, "preview.png"))


def _measurements(site: Site, job: looks.Facts) -> list[looks.Facts] | None:
    for result in job["results"]:
        if result["kind"] in REPORT_KINDS:
            return report.measurements(site.spool.path(result["path"]))
    return None


def preview(call: Call) -> Response:
    """Return the preview of a job as PNG."""
    job = _number(call.path["job"])
    path = _preview(call.site, job)
    if not path.is_file():
        raise RefusedError(404, "There is no preview.")
    with call.site.ledger.looking() as tx:
        uid = ledger_pages.study_of_job(tx, job)
    if uid is not None:
        audit_view(call, uid)
    return FileResponse(path, media_type="image/png")


def result(call: Call) -> Response:
    """Return a result as a DICOM file (PS3.10); who took it stands in the log."""
    with call.site.ledger.looking() as tx:
        found = ledger_pages.result_file(tx, _number(call.path["result"]))
    if found is None:
        raise RefusedError(404, "There is no such result.")
    path = call.site.spool.path(found["path"]).resolve()
    if not path.is_relative_to(call.site.spool.results.resolve()) or not path.is_file():
        raise RefusedError(404, "Its file is not in the spool.")
    fields = {"user": call.user.name, "sop_instance_uid": found["sop_instance_uid"]}
    log.info("RESULT_TAKEN", extra={"fields": fields})
    audit_view(call, found["study_uid"])
    name = f"{found['kind']}-{found['sop_instance_uid']}.dcm"
    return FileResponse(path, media_type="application/dicom", filename=name)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > BIGGEST_ID:
        raise RefusedError(404, "There is no such thing.")
    return int(text)


def sign_in_form(call: Call) -> Response:
    """Ask who it is."""
    following = _next(call.query.get("next", "/"))
    nobody = not call.site.users.table()
    return page(call, "sign_in.html", "Sign in", following=following, wrong=False, nobody=nobody)


def sign_in(call: Call) -> Response:
    """Begin a session, if name and password are right; not too many tries."""
    site = call.site
    name, password = call.form.get("name", "")[:MOST_NAME], call.form.get("password", "")
    key = f"{call.address} {name}"
    if not (site.tries.is_open(key) and site.tries_of_address.is_open(call.address)):
        raise RefusedError(
            429,
            "Too many tries. Wait five minutes.",
            {"retry-after": str(int(site.tries.seconds))},
        )
    user = site.users.signed_in(name, password)
    following = _next(call.form.get("next", "/"))
    if user is None:
        site.tries.failed(key)
        site.tries_of_address.failed(call.address)
        log.warning("SIGN_IN_REFUSED", extra={"fields": {"address": call.address}})
        is_last = not (site.tries.is_open(key) and site.tries_of_address.is_open(call.address))
        _audit(call, "SIGN_IN_REFUSED", name, failed=is_last)
        facts = {"following": following, "wrong": True, "nobody": False}
        return page(call, "sign_in.html", "Sign in", status=401, **facts)
    log.info("SIGNED_IN", extra={"fields": {"user": name, "address": call.address}})
    _audit(call, "SIGNED_IN", name)
    response = RedirectResponse(following, 303)
    cookie = site.sessions.begin(name, user.revision)
    set_cookie(site, response, COOKIE, cookie, site.sessions.seconds)
    return response


def sign_out(call: Call) -> Response:
    """End the session."""
    if call.user.session is not None:
        call.site.sessions.leave(call.user.session)
        _audit(call, "SIGNED_OUT", call.user.name)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


def _audit(call: Call, kind: str, name: str, *, failed: bool = False) -> None:
    outbox.record_now(
        call.site.ledger, kind, by=name, address=call.address, failed=failed, role="web"
    )


def audit_view(call: Call, study_uid: str) -> None:
    """Record that somebody looks at a study, or takes something of it."""
    name = call.user.name
    if call.site.viewings.begins(name, study_uid):
        outbox.record_now(
            call.site.ledger, "STUDY_VIEWED", by=name, study_uid=study_uid, address=call.address
        )


def _next(path: str) -> str:
    """Return a page of this site to go on to, whatever a link says."""
    is_ours = re.fullmatch(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", path) and len(path) < 1000
    return path if is_ours else "/"


FILES = {path.name: path for path in STATIC.iterdir() if path.is_file()}


def static(call: Call) -> Response:
    """Return a style or a script."""
    path = FILES.get(call.path["name"])
    if path is None:
        raise RefusedError(404, "There is no such file.")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(path, media_type=kind, headers={"cache-control": "max-age=3600"})


def alive(_call: Call) -> Response:
    """Say that the process answers."""
    return PlainTextResponse("ok\n")


def ready(call: Call) -> Response:
    """Say whether the ledger and the spool can be read."""
    with call.site.ledger.looking() as tx:
        ledger_pages.first_file(tx, "")
    if not call.site.spool.instances.is_dir():
        raise RefusedError(503, "The spool cannot be read.")
    return PlainTextResponse("ok\n")


PAGES: tuple[Page, ...] = (
    Page(path="/", handle=overview),
    Page(path="/studies", handle=studies),
    Page(path="/studies/{uid}", handle=study),
    Page(path="/previews/{job}", handle=preview),
    Page(path="/results/{result}", handle=result),
    Page(path="/login", handle=sign_in_form, role=None),
    Page(path="/login", handle=sign_in, role=None, method="POST"),
    Page(path="/logout", handle=sign_out, method="POST"),
    Page(path="/static/{name}", handle=static, role=None),
    Page(path="/healthz", handle=alive, role=None),
    Page(path="/readyz", handle=ready, role=None),
)
