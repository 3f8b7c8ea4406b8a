"""An archive that does as it is told: a real Storage SCP of pynetdicom, with a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peers import HOST, free_port
from pynetdicom import AE, evt

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
PICTURE = "1.2.840.10008.5.1.4.1.1.7"
COMPREHENSIVE_3D = "1.2.840.10008.5.1.4.1.1.88.34"
COMPREHENSIVE = "1.2.840.10008.5.1.4.1.1.88.33"
CLASSES = (SEGMENTATION, LABEL_MAP, PICTURE, COMPREHENSIVE_3D, COMPREHENSIVE)
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
VERIFICATION = "1.2.840.10008.1.1"

Answer = Callable[[Any], int]


class ScriptedArchive:
    """Answers every C-STORE as its script says, and notes what came.

    Args:
        answer: what it answers to a request; Success without it.
        classes: SOP Classes that it takes.
        syntaxes: and in which transfer syntaxes.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        classes: Sequence[str] = CLASSES,
        syntaxes: Sequence[str] = SYNTAXES,
        handlers: Sequence[tuple[Any, ...]] = (),
    ) -> None:
        self.port = free_port()
        self.answer: Answer = answer or (lambda _event: 0x0000)
        self.classes = list(classes)
        self.syntaxes = list(syntaxes)
        self.came: list[str] = []
        """SOP Instance UIDs of requests, in their order."""
        self.kept: list[str] = []
        """Of those answered with Success or a warning."""
        self.associations = 0
        self._handlers = list(handlers)
        self._server: Any = None

    def start(self) -> ScriptedArchive:
        """Listen; classes and syntaxes are those of this moment."""
        ae = AE(ae_title="ARCHIVE")
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, self.syntaxes)
        ae.add_supported_context(VERIFICATION)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ESTABLISHED, self._count),
            *self._handlers,
        ]
        self.extend(ae)
        self._server = ae.start_server((HOST, self.port), block=False, evt_handlers=handlers)
        return self

    def extend(self, ae: Any) -> None:
        """Let it do more, as those do that derive from it."""

    def stop(self) -> None:
        """Be away: nobody listens on the port any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _count(self, _event: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.came.append(uid)
        status = self.answer(event)
        if status == 0x0000 or status & 0xF000 == 0xB000:
            self.kept.append(uid)
        return status
