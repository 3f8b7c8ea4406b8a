"""The exceptions of the node, whose fault each is, and what it becomes.

DicomnodeError
├── SettingsError     the configuration's fault: file, line, key and what was expected
├── Refusal           the series' fault: it cannot be analysed honestly; becomes a reason code
├── PurgedError       a person's: what was asked for needs bytes that are purged
├── BackupError       a person's: no backup can be made, or this one not be restored
├── LedgerError       the ledger cannot be used (unreachable, other schema); becomes 0xA700
│   └── ConflictError somebody else inserted the same row first; look again
└── EngineError       the analysis itself failed (crash, out of memory, time-out); becomes a retry
"""

from __future__ import annotations


class DicomnodeError(Exception):
    """Base of everything this node raises on purpose."""


class SettingsError(DicomnodeError):
    """The configuration cannot be used; the text has a line for every fault."""


class Refusal(DicomnodeError):  # noqa: N818 - it is the word of the field, and no error
    """The series cannot be analysed honestly.

    Attributes:
        code: stable reason code in UPPER_SNAKE, shown in `status` and in the job's row.
        detail: one sentence for a person, without patient data.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[Refusal], tuple[str, str]]:
        return type(self), (self.code, self.detail)


class PurgedError(DicomnodeError):
    """What was asked for needs bytes that are purged."""


class BackupError(DicomnodeError):
    """No backup can be made, or this one cannot be restored; nothing was overwritten."""


class LedgerError(DicomnodeError):
    """The ledger cannot be used now."""


class ConflictError(LedgerError):
    """A unique index refused a row: somebody else was first."""


class EngineError(DicomnodeError):
    """The analysis failed for a reason that is not the series'.

    Attributes:
        code: stable reason code in UPPER_SNAKE (WORKER_CRASHED, OUT_OF_MEMORY, TIMEOUT, ...).
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type[EngineError], tuple[str, str]]:
        return type(self), (self.code, self.detail)
