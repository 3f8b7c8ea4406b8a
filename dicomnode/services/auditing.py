"""The audit trail on its way out: records become messages, and go to where they are kept, in order.

A record waits in the ledger until each place of the configuration has its message; a place that
cannot be used is tried again and again, and holds up nothing else. Names and IDs of patients stand
in no record: they are read from the study's files when the message is made, or from a note beside
the spool that is left where the files go before their message (`remover`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicomnode.audit_files import AuditFiles
from dicomnode.domain.audit import encode
from dicomnode.domain.audit_acts import Act, Here, Other, Patient, message_of
from dicomnode.domain.audit_policy import FILE, SYSLOG, syslog_message
from dicomnode.instances.fields import UnreadableError
from dicomnode.instances.subjects import read_patient
from dicomnode.ledger import audit_sinks, auditing, outbox
from dicomnode.ledger.auditing import Waiting
from dicomnode.network import syslog
from dicomnode.network.syslog import SyslogError
from dicomnode.services.common import Context
from dicomnode.settings import Settings

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
AT_ONCE = 100


def keep_in_files(context: Context) -> int:
    """Bring what waits to the files; return how many messages."""
    return _bring(context, FILE)


def send_to_repository(context: Context) -> int:
    """Bring what waits to the audit repository; return how many messages."""
    return _bring(context, SYSLOG)


def _bring(context: Context, sink: str) -> int:
    count, settings = 0, context.settings
    if sink not in settings.audit.sinks:
        return 0
    while not context.stop.is_set():
        with context.ledger.looking() as tx:
            may = audit_sinks.may_be_tried(tx, sink)
            found = auditing.waiting(tx, sink, AT_ONCE) if may else []
        if not found:
            break
        try:
            _write(context, sink, found)
        except (OSError, SyslogError) as error:
            _failed(context, sink, error)
            break
        with context.ledger.transaction() as tx:
            auditing.kept(tx, sink, [one.id for one in found])
            audit_sinks.well(tx, sink)
            auditing.sweep(tx, settings.audit.sinks)
            audit_sinks.forget_others(tx, settings.audit.sinks)
        count += len(found)
    if count:
        _forget_patients(context)
    return count


def _write(context: Context, sink: str, found: Sequence[Waiting]) -> None:
    settings = context.settings
    policy, here = settings.audit, here_of(settings)
    acts = [_complete(context, one) for one in found]
    messages = [message_of(act, here) for act in acts]
    lines = [encode(message) for message in messages]
    if sink == FILE and policy.file is not None:
        AuditFiles(settings.audit_folder, policy.file).write(lines, datetime.now(UTC))
    elif policy.syslog is not None:
        framed = [
            syslog_message(line, message.at, here.host, here.node_id, warns=message.outcome > 0)
            for line, message in zip(lines, messages, strict=True)
        ]
        syslog.send(policy.syslog, framed)


def _failed(context: Context, sink: str, error: Exception) -> None:
    policy = context.settings.audit
    detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
    alarm = timedelta(seconds=policy.alarm_seconds)
    jitter = random.random()  # noqa: S311 - no secret
    with context.ledger.transaction() as tx:
        audit_sinks.failed(tx, sink, detail[:200], policy.retry, jitter, alarm)


def here_of(settings: Settings) -> Here:
    """Return who reports."""
    return Here(
        node_id=settings.node.id,
        ae_title=settings.node.ae_title,
        host=socket.gethostname(),
        site=settings.audit.site,
    )


def _complete(context: Context, one: Waiting) -> Act:
    """Return an act with what the ledger does not know."""
    settings, act = context.settings, one.act
    changes: dict[str, object] = {}
    if one.destination:
        changes["other"] = _other(settings, one.destination)
    if act.kind == "QUERIED" and act.study_uid is not None:
        changes["query"] = _identifier(act.study_uid)
    elif settings.audit.patients and act.study_uid is not None:
        patient = _patient(context, act.study_uid, one.paths)
        changes |= {"patient": patient, "patient_is_lost": patient is None}
    return replace(act, **changes)  # type: ignore[arg-type]  # names of its fields


def _other(settings: Settings, name: str) -> Other:
    """Return a destination, or a peer, as the configuration has it now."""
    where = settings.destinations.get(name)
    if where is not None and where.folder is not None:
        return Other(name=name, folder=where.folder)
    peer = settings.peer_of(name) if where is not None else settings.peers.get(name)
    address = settings.host_of(name) if where is not None else peer.host if peer else ""
    return Other(name=name, ae_title=peer.ae_title if peer else "", address=address)


def _identifier(study_uid: str) -> bytes:
    """Return what is asked of an archive, in Implicit VR Little Endian (PS3.4 C.6.2.1)."""
    uid = study_uid.encode("ascii")
    elements = ((0x0008, 0x0052, b"STUDY "), (0x0020, 0x000D, uid + b"\0" * (len(uid) % 2)))
    return b"".join(
        group.to_bytes(2, "little")
        + element.to_bytes(2, "little")
        + len(value).to_bytes(4, "little")
        + value
        for group, element, value in elements
    )


# Patients


def _patient(context: Context, study_uid: str, paths: Sequence[str]) -> Patient | None:
    """Return whose a study is; None where nothing says it: no file may hold up the trail."""
    for path in paths:
        with contextlib.suppress(OSError, UnreadableError):
            return read_patient(context.spool.path(path))
    try:
        return Patient(**json.loads(_note(context, study_uid).read_bytes()))
    except (OSError, ValueError, TypeError):  # there is none, or a power cut has left it empty
        return None


def _note(context: Context, study_uid: str) -> Path:
    return context.spool.root / "audit" / f"{study_uid}.json"


def remover(context: Context) -> Callable[[str], None]:
    """Return what removes instances from the spool, and notes first whose their study was.

    The message that says that they went comes later than that.
    """
    noted: set[str] = set()
    policy = context.settings.audit

    def remove(path: str) -> None:
        study_uid = Path(path).parts[1]
        if policy.sinks and policy.patients and study_uid not in noted:
            # A full disk above all needs what goes to go: then the message names the study alone.
            with contextlib.suppress(OSError, UnreadableError):
                _keep(context, study_uid, read_patient(context.spool.path(path)))
                noted.add(study_uid)
        context.spool.remove(path)

    return remove


def _keep(context: Context, study_uid: str, patient: Patient) -> None:
    note = _note(context, study_uid)
    note.parent.mkdir(exist_ok=True, mode=0o700)
    told = {"id": patient.id, "issuer": patient.issuer, "name": patient.name}
    beside = note.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(told, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(note)


def _forget_patients(context: Context) -> None:
    """Remove the notes of studies that no record names any more."""
    for note in (context.spool.root / "audit").glob("*.json"):
        with context.ledger.looking() as tx:
            is_needed = auditing.names(tx, note.stem)
        if not is_needed:
            note.unlink(missing_ok=True)


# Old files


def remove_old_files(context: Context) -> int:
    """Remove files of the audit trail that are older than they have to be kept; return how many."""
    policy = context.settings.audit.file
    if policy is None:
        return 0
    gone = AuditFiles(context.settings.audit_folder, policy).remove_old(datetime.now(UTC))
    for path in gone:
        log.warning("AUDIT_FILE_REMOVED", extra={"fields": {"path": path.name}})
        detail = f"kept for {policy.keep_days:g} days"
        subject = f"file://{path}"
        outbox.record_now(context.ledger, "AUDIT_FILE_REMOVED", detail=detail, subject=subject)
    return len(gone)
