"""Log lines: one event with its fields, UIDs but never a patient's name or ID."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime


class _Line(logging.Formatter):
    """`time level role event key=value ...`, for people and for journald alike."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        parts = [time, record.levelname.lower(), self._role, record.getMessage()]
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


def set_up(role: str, *, verbose: bool = False) -> None:
    """Write this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for chatty in ("alembic", "apscheduler", "highdicom", "pynetdicom", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # pydicom complains of values by quoting them, patient names among them.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"pydicom\b.*")
