"""Who sent a request, whether they may, and the headers of every answer."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomnode.domain.page import may
from dicomnode.errors import LedgerError
from dicomnode.ledger.pages import BadPlaceError
from dicomnode.users import UsersError
from dicomnode.web.sessions import BEFORE, COOKIE
from dicomnode.web.site import Call, Page, Site, Who

log = logging.getLogger(__name__)

MOST_FORM_BYTES = 64 << 10
MOST_FIELDS = 300
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
FORM_HEADER = "x-form-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class RefusedError(Exception):
    """A request is not answered as its sender hoped.

    Attributes:
        status: of HTTP.
        says: one sentence.
        headers: that go with it.
    """

    def __init__(self, status: int, says: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(says)
        self.status = status
        self.says = says
        self.headers = headers or {}


def guarded(site: Site, page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of a route: only who may reaches its handler, in a thread of its own."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await _form(request) if page.method == "POST" else {}
            return await run_in_threadpool(_answer, site, page, request, form)
        except RefusedError as refused:
            return refusal(site, refused, is_api=page.is_api)
        except ClientDisconnect:
            return Response(status_code=400)
        except BadPlaceError as error:
            return refusal(site, RefusedError(400, str(error)), is_api=page.is_api)
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")
            says = "The ledger cannot be read now. Look at the database and its disk."
            return refusal(site, RefusedError(503, says), is_api=page.is_api)
        except UsersError:
            log.exception("USERS_UNREADABLE")
            says = "The file of users cannot be read; the log says why."
            return refusal(site, RefusedError(503, says), is_api=page.is_api)

    return endpoint


def _answer(site: Site, page: Page, request: Request, form: dict[str, str]) -> Response:
    address = request.client.host if request.client else ""
    who = sender(site, request, address)
    before = request.cookies.get(BEFORE, "")
    if page.role is not None:
        if who is None:
            if page.is_api or page.method != "GET":
                header = {"www-authenticate": "Bearer"}
                raise RefusedError(401, "Sign in, or bring a token.", header)
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(asked, safe='')}", 303)
        if not may(who.role, page.role):
            raise RefusedError(403, f"Only who has the role {page.role} may do this.")
    if page.method == "POST":
        _check_origin(site, request)
        key = before if who is None or page.role is None else who.form_key
        given = form.get(FORM_TOKEN) or request.headers.get(FORM_HEADER, "")
        if key is not None and not (key and site.sessions.is_form_token(key, given)):
            raise RefusedError(403, "The form is too old. Go back, load the page anew, try again.")
    is_new = page.path == "/login" and page.method == "GET" and not before
    call = Call(
        site=site,
        who=who,
        address=address,
        path={name: str(value) for name, value in request.path_params.items()},
        query=dict(request.query_params),
        form=form,
        before=secrets.token_urlsafe(18) if is_new else before,
        wants_page=not page.is_api,
    )
    response = page.handle(call)
    if is_new:
        set_cookie(site, response, BEFORE, call.before)
    return response


def sender(site: Site, request: Request, address: str) -> Who | None:
    """Return who sent a request: by its token, its proxy, or its session; None: nobody known.

    A token that is wrong makes a request nobody's, whatever cookies come with it.
    """
    header = request.headers.get("authorization")
    if header is not None:
        kind, _, secret = header.partition(" ")
        found = site.users.by_token(secret.strip()) if kind.lower() == "bearer" else None
        return None if found is None else Who(name=found[0], role=found[1].role, form_key=None)
    web = site.settings.web
    if web.proxy_header and web.is_trusted(address):
        name = request.headers.get(web.proxy_header, "")
        user = site.users.table().get(name)
        return None if user is None else Who(name=name, role=user.role, form_key=f"proxy {name}")
    session = site.sessions.read(request.cookies.get(COOKIE))
    if session is None:
        return None
    user = site.users.table().get(session.user)
    if user is None or user.revision != session.revision:
        return None
    return Who(name=session.user, role=user.role, form_key=session.id, session=session)


def _check_origin(site: Site, request: Request) -> None:
    """Refuse a form of another site's page, as the browser says whose it is."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "The request came from another site.")
    origin = request.headers.get("origin")
    if origin is None:
        return
    public = urlsplit(site.settings.web.public_url or "").netloc
    if urlsplit(origin).netloc not in {request.headers.get("host", ""), public} - {""}:
        raise RefusedError(403, "The request came from another site.")


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form, of a limited size; of a repeated one the values by commas."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            raise RefusedError(413, "The form is too large.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/x-www-form-urlencoded":
        raise RefusedError(415, "Expected a form: application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise RefusedError(400, "The form cannot be read.") from error
    form: dict[str, str] = {}
    for name, value in pairs:
        form[name] = f"{form[name]},{value}" if name in form else value
    return form


def refusal(site: Site, refused: RefusedError, *, is_api: bool) -> Response:
    """Return a refusal as a page, or as JSON."""
    if is_api:
        body = {"error": refused.says}
        return JSONResponse(body, refused.status, headers=refused.headers)
    text = site.templates.get_template("refused.html").render(
        status=refused.status, says=refused.says, who=None, title="Not possible"
    )
    return Response(text, refused.status, media_type="text/html", headers=refused.headers)


def set_cookie(site: Site, response: Response, name: str, value: str, seconds: int = 0) -> None:
    """Give the browser a cookie that no script reads and no other site sends."""
    response.set_cookie(
        name,
        value,
        max_age=seconds or None,
        httponly=True,
        samesite="strict",
        secure=site.settings.web.is_encrypted,
        path="/",
    )


class SecurityHeaders:
    """Puts the headers on every answer, faults included.

    Args:
        app: whose answers.
        is_encrypted: browsers come by HTTPS, and shall come by nothing else.
    """

    def __init__(self, app: ASGIApp, is_encrypted: bool) -> None:
        self.app = app
        headers = dict(HEADERS)
        if is_encrypted:
            headers["strict-transport-security"] = "max-age=31536000"
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                have: list[tuple[bytes, bytes]] = list(message.get("headers", []))
                more: list[tuple[bytes, bytes]] = list(self._headers)
                if not any(name == b"cache-control" for name, _ in have):
                    more.append((b"cache-control", b"no-store"))
                changed: dict[str, Any] = {**message, "headers": have + more}
                message = changed
            await send(message)

        await self.app(scope, receive, with_headers)
