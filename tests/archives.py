"""Archives that do as they are told: real SCPs of pynetdicom, with a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from peers import HOST, free_port
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from scu import opened

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
        self._handlers: list[tuple[Any, ...]] = []
        self._server: Any = None

    def start(self) -> ScriptedArchive:
        """Listen; classes and syntaxes are those of this moment."""
        ae = AE(ae_title="ARCHIVE")
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, self.syntaxes)
        ae.add_supported_context(VERIFICATION)
        self.extend(ae)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ESTABLISHED, self._count),
            *self._handlers,
        ]
        self._server = ae.make_server((HOST, self.port), evt_handlers=handlers)
        ae._servers.append(self._server)  # as `start_server` does, for its end
        # Looks often whether it is to end; pynetdicom's own thread would let each test wait.
        serve = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        serve.start()
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


PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
Report = tuple[str, list[tuple[str, str]], list[tuple[str, str, int]]]
"""Transaction UID, what is committed, and what is not with its Failure Reason."""


class CommittingArchive(ScriptedArchive):
    """Takes requests for storage commitment, and reports as its script says.

    Args:
        answer: to C-STORE.
        script: request -> the reports that follow; without it everything is committed.
        status: of the answer to the request.
        offers: whether it offers commitment at all.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        script: Callable[[Report], Sequence[Report]] | None = None,
        status: int = 0x0000,
        offers: bool = True,
        **keywords: Any,
    ) -> None:
        super().__init__(answer, **keywords)
        self.script = script or (lambda request: [request])
        self.status = status
        self.offers = offers
        self.requests: list[Report] = []
        self.answers: list[int] = []
        """To its reports."""

    def extend(self, ae: Any) -> None:
        """Offer commitment."""
        if self.offers:
            ae.add_supported_context(PUSH_MODEL)
            self._handlers = [(evt.EVT_N_ACTION, self._act)]

    def _act(self, event: Any) -> tuple[int, None]:
        information = event.action_information
        references = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        ]
        request: Report = (str(information.TransactionUID), references, [])
        self.requests.append(request)
        if self.status == 0x0000:
            # The response goes first.
            threading.Timer(0.05, self._report, args=(event.assoc, request)).start()
        return self.status, None

    def _report(self, association: Any, request: Report) -> None:
        for report in self.script(request):
            self.answers.append(send_report(association, report))

    def call_and_report(self, port: int, report: Report, ae_title: str = "ARCHIVE") -> int:
        """Report over an association of its own; return the status of the answer."""
        ae = AE(ae_title=ae_title)
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate(
            HOST,
            port,
            ae_title="DICOMNODE",
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
            evt_handlers=[(evt.EVT_CONN_OPEN, opened)],
        )
        assert association.is_established
        try:
            return send_report(association, report)
        finally:
            association.release()


def send_report(association: Any, report: Report) -> int:
    """Send a report; return the status of the answer, -1 without one."""
    uid, committed, failed = report
    information = Dataset()
    information.TransactionUID = uid
    information.ReferencedSOPSequence = [_reference(*one) for one in committed]
    if failed:
        information.FailedSOPSequence = [_reference(*one) for one in failed]
    status, _ = association.send_n_event_report(
        information, 2 if failed else 1, PUSH_MODEL, PUSH_MODEL_INSTANCE
    )
    return int(status.get("Status", -1))


def _reference(sop_class: str, sop_instance: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop_instance
    if reason is not None:
        item.FailureReason = reason
    return item
