"""Templates, and the few words that they put numbers and times into."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import Response

from dicomnode import __version__
from dicomnode.domain.glance import ago
from dicomnode.domain.page import may
from dicomnode.domain.sayings import saying
from dicomnode.web.site import TEMPLATES, Call


def environment() -> Environment:
    """Return the templates; whatever a peer has written is text, never markup."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "words": words,
        "when": when,
        "clock": clock,
        "size": size,
        "ago": ago,
        "seconds": seconds,
    }
    made.globals |= {"version": __version__, "saying": saying}
    return made


def page(call: Call, template: str, title: str, status: int = 200, **facts: Any) -> Response:
    """Return a page."""
    who = call.who
    form_key = call.before if who is None else who.form_key
    text = call.site.templates.get_template(template).render(
        title=title,
        who=who,
        may_act=who is not None and may(who.role, "operator"),
        form_token=call.site.sessions.form_token(form_key) if form_key else "",
        node=call.site.settings.node,
        **facts,
    )
    return Response(text, status, media_type="text/html")


def words(text: str) -> Markup:
    """Return a sentence in which what stands between backticks is code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def when(text: str | None) -> str:
    """Return a time of the ledger as date and time of day, in UTC."""
    return "" if not text else datetime.fromisoformat(text).astimezone(UTC).strftime("%F %T")


def clock(text: str) -> str:
    """Return the time of day of a time of the ledger, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%H:%M")


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def seconds(value: float | None) -> str:
    """Return a span of time: short ones with a tenth of a second."""
    if value is None:
        return "-"
    return f"{value:.1f} s" if value < 60 else ago(value)
