"""Log lines: one event with its fields, UIDs but never a patient's name or ID."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from datetime import UTC, datetime

FORMAT = "DICOMNODE_LOG_FORMAT"
"""Set by a process for those that it starts."""


class _Line(logging.Formatter):
    """`time level role event key=value ...`, for people and for journald alike."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        parts = [time, record.levelname.lower(), self.role, record.getMessage()]
        parts += [f"{key}={_quoted(value)}" for key, value in fields.items()]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(value: object) -> str:
    """Nothing that a peer has said can begin a line or a field of its own."""
    text = str(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


class _Json(logging.Formatter):
    """One JSON object a line: time, level, role, event, and the event's fields beneath `fields`."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "role": self.role,
            "event": record.getMessage(),
            "fields": getattr(record, "fields", {}),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def set_format(form: str) -> None:
    """Write the log as lines of text or of JSON, from now on and in processes started from here."""
    os.environ[FORMAT] = form
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, (_Line, _Json)):
            handler.setFormatter(_formatter(handler.formatter.role))


def _formatter(role: str) -> logging.Formatter:
    return _Json(role) if os.environ.get(FORMAT) == "json" else _Line(role)


def set_up(role: str, *, verbose: bool = False) -> None:
    """Write this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in ("alembic", "apscheduler", "highdicom", "pynetdicom", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # pydicom complains of values by quoting them, patient names among them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\b.*")
