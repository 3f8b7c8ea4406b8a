"""The role web: uvicorn in a thread, the role's life in the main one."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import uvicorn

from dicomnode.errors import DicomnodeError
from dicomnode.ledger import Ledger
from dicomnode.services.common import Context, beat_until_stopped, role, secret_in
from dicomnode.settings import Settings
from dicomnode.spool import Spool
from dicomnode.users import Users
from dicomnode.web.app import create
from dicomnode.web.fetching import Fetcher
from dicomnode.web.metrics import Metrics
from dicomnode.web.rendering import environment
from dicomnode.web.sessions import Sessions
from dicomnode.web.site import Site

log = logging.getLogger(__name__)

NAME = "web"
GRACE_SECONDS = 5
MOST_REQUESTS = 200
"""At a time; more are told to come again."""


def site_of(settings: Settings, ledger: Ledger, spool: Spool, config: Path) -> Site:
    """Return what requests work with."""
    key = secret_in(settings.folder / "web.key")
    return Site(
        settings=settings,
        ledger=ledger,
        spool=spool,
        users=Users(settings.users_file),
        sessions=Sessions(key, settings.web.session_hours * 3600),
        templates=environment(),
        metrics=Metrics(),
        fetcher=Fetcher(config, ledger),
    )


def run(settings: Settings, config: Path) -> None:
    """Serve the page until the role is to stop.

    Raises:
        DicomnodeError: the port cannot be had, or the role's storage cannot be used.
    """
    with role(settings, NAME, config) as context:
        site = site_of(settings, context.ledger, context.spool, config)

        def renew() -> None:
            site.settings = context.settings

        context.on_reload.append(renew)
        server = uvicorn.Server(_configuration(settings, site))
        serving = threading.Thread(target=_serve, args=(server, context), name="uvicorn")
        site.fetcher.start()
        serving.start()
        while serving.is_alive() and not server.started:
            context.stop.wait(0.05)
        if server.started:
            log.info("LISTENING", extra={"fields": {"port": settings.web.port}})
        try:
            beat_until_stopped(context, NAME, lambda: "serves the page")
        finally:
            server.should_exit = True
            site.fetcher.stop()
            serving.join()
        if not server.started:
            raise DicomnodeError(f"web: port {settings.web.port} cannot be used; the log says why")


def _serve(server: uvicorn.Server, context: Context) -> None:
    try:
        server.run()
    except SystemExit:
        log.warning("PORT_NOT_FREE", extra={"fields": {"port": server.config.port}})
    finally:
        context.stop.set()


def _configuration(settings: Settings, site: Site) -> uvicorn.Config:
    web = settings.web
    return uvicorn.Config(
        create(site),
        host=web.bind,
        port=web.port,
        ssl_certfile=web.certificate,
        ssl_keyfile=None if web.key is None else str(web.key),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who calls is the socket's word, never a header's
        lifespan="off",
        ws="none",
        limit_concurrency=MOST_REQUESTS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=64 << 10,
    )
