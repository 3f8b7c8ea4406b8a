"""The receive role: C-STORE in, bytes to the spool, a row to the ledger, then the answer.

Success is answered only when both are durable. Loads no model and never decodes a data set.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from dicomnode import instances
from dicomnode.domain import admission
from dicomnode.domain.admission import Decision, Fate
from dicomnode.domain.records import Header
from dicomnode.errors import ConflictError, LedgerError, SettingsError
from dicomnode.instances import UnreadableError
from dicomnode.ledger import intake, rejections
from dicomnode.ledger.core import Transaction
from dicomnode.network.scp import Requestor, StorageServer, StoreRequest
from dicomnode.services.common import Context, beat_until_stopped, role
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

NAME = "receive"
GRACE_SECONDS = 8.0


class Receiver:
    """Stands behind the SCP: decides on each instance and makes the decision durable."""

    def __init__(self, context: Context) -> None:
        self._settings = context.settings
        self._spool = context.spool
        self._ledger = context.ledger
        self._key = context.patient_key

    def opened(self, requestor: Requestor) -> int | None:
        """Record the association; a ledger that is away shows with the first instance."""
        try:
            with self._ledger.transaction() as tx:
                return intake.open_association(
                    tx,
                    calling_ae=requestor.calling_ae,
                    called_ae=requestor.called_ae,
                    address=requestor.address,
                )
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")
            return None

    def closed(self, association_id: int, *, outcome: str, instances: int, size: int) -> None:
        """Record how the association ended."""
        try:
            with self._ledger.transaction() as tx:
                intake.close_association(
                    tx, association_id, outcome=outcome, instances=instances, size=size
                )
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")

    def rejected(self, requestor: Requestor) -> None:
        """Record an association that was rejected."""
        detail = (
            f"calling AE {requestor.calling_ae!r}, called AE {requestor.called_ae!r}, from"
            f" {requestor.address}"
        )
        try:
            with self._ledger.transaction() as tx:
                tx.event_again("ASSOCIATION_REJECTED", level="warning", detail=detail)
        except LedgerError:
            log.exception("LEDGER_UNAVAILABLE")

    def store(self, request: StoreRequest) -> int:
        """Decide on an instance, make its bytes and its row durable, and return the status."""
        try:
            decision = self._store(request)
        except (OSError, LedgerError):
            log.exception("STORAGE_FAILED")
            decision = admission.NO_LEDGER
        if decision.status != admission.SUCCESS:
            log.warning(
                "INSTANCE_REFUSED",
                extra={
                    "fields": {
                        "status": f"0x{decision.status:04X}",
                        "code": decision.code,
                        "calling_ae": request.requestor.calling_ae,
                        "detail": decision.detail,
                    }
                },
            )
        return decision.status

    def _store(self, request: StoreRequest) -> Decision:
        if self._spool.free_bytes() < self._settings.limits.min_free_bytes:
            with self._ledger.transaction() as tx:
                tx.event_again(
                    admission.NO_SPACE.code, level="attention", detail=admission.NO_SPACE.detail
                )
            return admission.NO_SPACE
        digest = hashlib.sha256(request.data).hexdigest()
        try:
            header = instances.read_header(request.data, request.transfer_syntax_uid, self._key)
        except UnreadableError as error:
            return self._set_aside(request, None, admission.unparseable(str(error)))
        tmp = self._write_tmp(request)
        try:
            try:
                return self._decide_and_record(request, header, digest, tmp)
            except ConflictError:
                # Another association stored the same instance at the same moment: it is known now.
                return self._decide_and_record(request, header, digest, tmp)
        finally:
            tmp.unlink(missing_ok=True)

    def _write_tmp(self, request: StoreRequest) -> Path:
        prefix = instances.file_prefix(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax_uid
        )
        return self._spool.write_tmp([prefix, request.data])

    def _decide_and_record(
        self, request: StoreRequest, header: Header, digest: str, tmp: Path
    ) -> Decision:
        same = self._compare_pixels(header, digest, tmp)
        with self._ledger.transaction() as tx:
            known = intake.known(tx, header)
            decision = admission.decide(
                header,
                request_sop_class_uid=request.sop_class_uid,
                request_sop_instance_uid=request.sop_instance_uid,
                digest=digest,
                known=known.instance,
                study_patient=known.study_patient,
                is_own_result=known.is_own_result,
                is_rejected=known.is_rejected,
                same_pixels=same,
            )
            if decision.fate in (Fate.STORE, Fate.STORE_ASIDE):
                self._record(tx, request, header, decision, digest, tmp)
                self._consider(tx, request, header, decision)
                return decision
            if decision.fate is Fate.DROP:
                intake.record_only(tx, header, decision, request.association_id)
                self._consider(tx, request, header, decision)
                return decision
        return self._set_aside(request, header, decision)

    def _record(
        self,
        tx: Transaction,
        request: StoreRequest,
        header: Header,
        decision: Decision,
        digest: str,
        tmp: Path,
    ) -> None:
        """Insert the row, then publish the file, then commit: the row's unique index makes sure
        that no two instances ever take the same place."""
        path = self._spool.instance_path(
            header.study_uid, header.series_uid, header.sop_instance_uid
        )
        intake.add(
            tx,
            header,
            decision,
            digest=digest,
            size=len(request.data),
            path=path,
            association_id=request.association_id,
            policy=self._settings.assembly_of(request.requestor.calling_ae),
            counts=decision.fate is Fate.STORE,
        )
        self._spool.publish(tmp, path)

    def _consider(
        self, tx: Transaction, request: StoreRequest, header: Header, decision: Decision
    ) -> None:
        """Do what a rejection note demands."""
        sender = request.requestor.calling_ae
        rejections.consider(
            tx,
            header,
            decision,
            self._settings.assembly_of(sender),
            trusted=self._settings.is_authority(sender),
        )

    def _compare_pixels(self, header: Header, digest: str, tmp: Path) -> bool | None:
        with self._ledger.transaction() as tx:
            known = intake.known(tx, header)
        if known.path is None or not admission.needs_decoding(header, digest, known.instance):
            return None
        return instances.same_pixels(tmp.read_bytes(), self._spool.path(known.path).read_bytes())

    def _set_aside(
        self, request: StoreRequest, header: Header | None, decision: Decision
    ) -> Decision:
        tmp = self._write_tmp_unchecked(request)
        place = self._spool.put_into_quarantine(
            tmp,
            {
                "code": decision.code,
                "detail": decision.detail,
                "status": decision.status,
                "calling_ae": request.requestor.calling_ae,
                "transfer_syntax_uid": request.transfer_syntax_uid,
            },
        )
        with self._ledger.transaction() as tx:
            note = Decision(
                status=decision.status,
                fate=decision.fate,
                code=decision.code,
                level=decision.level,
                detail=f"{decision.detail}; bytes kept in {place}",
                hold_study=decision.hold_study,
            )
            intake.record_only(tx, header, note, request.association_id)
        return decision

    def _write_tmp_unchecked(self, request: StoreRequest) -> Path:
        try:
            return self._write_tmp(request)
        except ValueError:
            # The request's UIDs cannot even stand in File Meta Information: keep the bare data set.
            return self._spool.write_tmp([request.data])


def check_spool(context: Context) -> None:
    """Settle what a crash left: unfinished files, files without a row, rows without a file."""
    removed = context.spool.clear_tmp()
    if removed:
        log.info("TMP_CLEARED", extra={"fields": {"files": removed}})
    with context.ledger.transaction() as tx:
        rows = set(intake.stored_paths(tx))
    files = set(context.spool.stored_instances())
    lost = rows - files
    if lost:
        with context.ledger.transaction() as tx:
            tx.event_again(
                "BYTES_MISSING",
                level=admission.ATTENTION,
                detail=f"{len(lost)} instances of the ledger have no file in the spool",
            )
    for path in sorted(files - rows):
        _register(context, path)


def _register(context: Context, path: str) -> None:
    """Give a file its row: it was published, but its sender never heard so."""
    data = context.spool.path(path).read_bytes()
    try:
        syntax, start = instances.split_file(data)
        header = instances.read_header(data[start:], syntax, context.patient_key)
    except UnreadableError as error:
        log.warning("FILE_WITHOUT_ROW", extra={"fields": {"path": path, "detail": str(error)}})
        return
    with context.ledger.transaction() as tx:
        known = intake.known(tx, header)
        decision = admission.decide(
            header,
            request_sop_class_uid=header.sop_class_uid,
            request_sop_instance_uid=header.sop_instance_uid,
            digest=hashlib.sha256(data[start:]).hexdigest(),
            known=known.instance,
            study_patient=known.study_patient,
            is_own_result=known.is_own_result,
            is_rejected=known.is_rejected,
        )
        if decision.fate in (Fate.STORE, Fate.STORE_ASIDE):
            intake.add(
                tx,
                header,
                decision,
                digest=hashlib.sha256(data[start:]).hexdigest(),
                size=len(data) - start,
                path=path,
                association_id=None,
                policy=context.settings.assembly,
                counts=decision.fate is Fate.STORE,
            )
    log.info("FILE_REGISTERED", extra={"fields": {"path": path}})


def run(settings: Settings) -> None:
    """Receive until the role is to stop."""
    with role(settings, NAME) as context:
        check_spool(context)
        titles = {peer.ae_title for peer in settings.peers.values() if peer.accept}
        if settings.node.port is None:
            raise SettingsError("node.port: the receiver needs it")
        server = StorageServer(
            Receiver(context),
            ae_title=settings.node.ae_title,
            bind=settings.node.bind,
            port=settings.node.port,
            calling_ae_titles=tuple(sorted(titles)),
            max_associations=settings.limits.max_associations,
            max_pdu_bytes=settings.limits.max_pdu_bytes,
            timeout_seconds=settings.limits.association_timeout_seconds,
        )
        server.start()
        address = f"{settings.node.bind}:{settings.node.port}"
        log.info("LISTENING", extra={"fields": {"address": address}})
        try:
            beat_until_stopped(context, NAME, lambda: f"{server.open_associations} associations")
        finally:
            server.stop(GRACE_SECONDS)
