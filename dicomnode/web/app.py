"""The application: its routes from a table, each behind the guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicomnode.web.acts import pages_of_acts
from dicomnode.web.api import API
from dicomnode.web.guard import RefusedError, SecurityHeaders, guarded, refusal
from dicomnode.web.pages import PAGES
from dicomnode.web.peers import SHOWN as PEERS
from dicomnode.web.quarantine import SHOWN as QUARANTINE
from dicomnode.web.site import Page, Site
from dicomnode.web.trying import TRYING


def all_pages() -> list[Page]:
    """Return every route there is."""
    return [*PAGES, *TRYING, *PEERS, *QUARANTINE, *pages_of_acts(), *API]


def create(site: Site) -> SecurityHeaders:
    """Return the ASGI application."""

    def unknown(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        says = "There is no such page." if status == 404 else "This is not possible here."
        headers = dict(getattr(error, "headers", None) or {})
        is_api = request.url.path.startswith("/api")
        return refusal(site, RefusedError(status, says, headers), is_api=is_api)

    def failed(request: Request, _error: Exception) -> Response:
        says = "Something unforeseen happened; the log has it."
        is_api = request.url.path.startswith("/api")
        return refusal(site, RefusedError(500, says), is_api=is_api)

    made = Starlette(
        routes=[
            Route(one.path, guarded(site, one), methods=[one.method], name=one.path)
            for one in all_pages()
        ],
        exception_handlers={404: unknown, 405: unknown, 500: failed},
    )
    # Outermost: even an answer to a fault of ours has them.
    return SecurityHeaders(made, site.settings.web.is_encrypted)
