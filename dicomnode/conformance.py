"""The DICOM Conformance Statement (PS3.2 annex N): conformance.md, filled from settings and tables.

Whatever is a table in the program is read from there, so that the statement cannot say otherwise.
Loads neither highdicom nor a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import resources
from string import Template

from pydicom.uid import UID

from dicomnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, __version__
from dicomnode.deflating import transfer_syntaxes
from dicomnode.domain import admission
from dicomnode.domain.alternatives import INSTEAD, REPORT_CLASSES
from dicomnode.domain.associations import APPLICATION_CONTEXT, REASONS
from dicomnode.domain.audit_acts import AUDITED, Act, Here, message_of
from dicomnode.domain.commitment import PUSH_MODEL
from dicomnode.domain.identifiers import SOPClassUID, TransferSyntaxUID
from dicomnode.domain.outcomes import Done, Outcome, Retry, classify_store_status
from dicomnode.domain.plans import (
    LABELMAP,
    MANUFACTURER,
    OBJECTS,
    PREVIEW,
    RTSTRUCT,
    SEG,
    SEG_PARTS,
    SR,
)
from dicomnode.domain.retrieval import Retrieved, SubOperations, judge
from dicomnode.domain.web import classify_http
from dicomnode.domain.withdrawal import TITLES
from dicomnode.network import contexts, requesting, retrieve
from dicomnode.network.query import STUDY_ROOT_FIND
from dicomnode.network.tls import CIPHERS
from dicomnode.services.asking import REPORT_WAIT_SECONDS
from dicomnode.settings import Settings

EXPLICIT = TransferSyntaxUID("1.2.840.10008.1.2.1")
IMPLICIT = TransferSyntaxUID("1.2.840.10008.1.2")
RLE = TransferSyntaxUID("1.2.840.10008.1.2.5")
KEY_OBJECTS = SOPClassUID("1.2.840.10008.5.1.4.1.1.88.59")
SEGMENTATION = SOPClassUID("1.2.840.10008.5.1.4.1.1.66.4")
CREATED: tuple[tuple[str, SOPClassUID, TransferSyntaxUID], ...] = (
    *((kind, SEGMENTATION, EXPLICIT) for kind in (SEG, *SEG_PARTS)),
    (LABELMAP, SOPClassUID("1.2.840.10008.5.1.4.1.1.66.7"), RLE),
    (RTSTRUCT, SOPClassUID("1.2.840.10008.5.1.4.1.1.481.3"), IMPLICIT),
    (PREVIEW, SOPClassUID("1.2.840.10008.5.1.4.1.1.7"), EXPLICIT),
    *((SR, sop_class, EXPLICIT) for sop_class in REPORT_CLASSES),
)
"""Kind, SOP Class and Transfer Syntax of what is made; a test compares it with results."""
IDENTITY = (
    "Patient's Name, Patient ID and its issuer, Patient's Birth Date, Accession Number or Study"
    " Instance UID"
)
C_STORE_ANSWERS = {
    admission.SUCCESS: "stored, or known already",
    admission.OUT_OF_RESOURCES: "out of resources; nothing is kept, and a repetition may succeed",
    admission.DATA_SET_DOES_NOT_MATCH: "the data set's SOP Class or Instance UID is not the"
    " request's",
    admission.CANNOT_UNDERSTAND: "not readable, or without valid UIDs",
    admission.PIXELS_DIFFER: "the SOP Instance UID came before with other pixels or another place",
}
UNNAMED = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}
"""Names of UIDs (PS3.6 annex A) that are younger than pydicom's dictionary."""
STORE_STATUSES = (0x0000, 0xB000, 0xB006, 0xB007, 0x0110, 0x0122, 0x0124, 0xA700, 0xA900, 0xC000)
HTTP_STATUSES = (200, 202, 400, 401, 403, 404, 409, 413, 415, 429, 500, 503, 507)
RETRIEVE_STATUSES = (0x0000, 0x0122, 0x0124, 0xA701, 0xA702, 0xA801, 0xA900, 0xC000, 0xFE00)


def statement(settings: Settings) -> str:
    """Return the Conformance Statement of a node with these settings, as Markdown."""
    text = resources.files("dicomnode").joinpath("conformance.md").read_text(encoding="utf-8")
    return Template(text).substitute(
        _of_settings(settings),
        version=__version__,
        created=_table(("SOP Class", "UID", "Transfer Syntax as made"), _created()),
        received_count=len(contexts.KNOWN_STORAGE_CLASSES),
        services=_rows(_services()),
        objects=_rows(_objects()),
        initiated=_rows(_initiated()),
        rejections=_rows(
            (reason.meaning, reason.result, reason.source, reason.reason)
            for reason in REASONS.values()
        ),
        accepted=_rows(_named(contexts.KNOWN_STORAGE_CLASSES)),
        without_study=", ".join(name for name, _ in _named(sorted(contexts.WITHOUT_A_STUDY))),
        syntaxes=_rows(_named(contexts.TRANSFER_SYNTAXES)),
        basic_syntaxes=_list(contexts.UNCOMPRESSED[:3]),
        answered=_rows((_hex(code), text) for code, text in C_STORE_ANSWERS.items()),
        understood=_rows((_hex(code), _said(code)) for code in STORE_STATUSES),
        retrieved=_rows(_retrieved()),
        web_answers=_rows(_web_answers()),
        application_context=APPLICATION_CONTEXT,
        implementation_uid=IMPLEMENTATION_CLASS_UID,
        implementation_name=IMPLEMENTATION_VERSION_NAME,
        request_pdu=requesting.MAX_PDU_BYTES,
        report_wait=f"{REPORT_WAIT_SECONDS:g}",
        rejection_codes=", ".join(TITLES),
        identity=IDENTITY,
        manufacturer=MANUFACTURER,
        report_classes=_list(REPORT_CLASSES),
        audit_messages=_rows(_audit_messages()),
        ciphers=", ".join(name for name in CIPHERS.split(":") if not name.startswith("@")),
    )


def _of_settings(settings: Settings) -> dict[str, object]:
    node, limits, send = settings.node, settings.limits, settings.send
    keeps = settings.receive.unknown_sop_classes == "keep"
    return {
        "ae_title": node.ae_title,
        "audit": " and ".join(settings.audit.sinks) or "off",
        "clear_port": "none" if node.port is None else f"{node.bind}, port {node.port}",
        "tls_port": "none" if node.tls is None else f"{node.bind}, port {node.tls.port}",
        "unknown_setting": settings.receive.unknown_sop_classes,
        "unknown_classes": "every one is accepted, of today or to come, and private ones."
        if keeps
        else "none is accepted.",
        "peers": _rows(
            (
                name,
                peer.ae_title,
                peer.host,
                peer.port or "-",
                _yes(peer.accept),
                _yes(peer.query),
                _yes(peer.tls is not None),
            )
            for name, peer in settings.peers.items()
        ),
        "destinations": _rows(
            (
                name,
                place.peer if place.stow_url is None else place.stow_url,
                ", ".join(place.takes),
                place.commitment or "off",
                _yes(place.iocm),
            )
            for name, place in settings.destinations.items()
        ),
        "commits_for": ", ".join(name for name, peer in settings.peers.items() if peer.commit_here)
        or "none",
        "input_days": "without end"
        if settings.retention.input_days is None
        else f"{settings.retention.input_days:g} days",
        "max_pdu": limits.max_pdu_bytes,
        "max_associations": limits.max_associations,
        "idle": f"{limits.association_timeout_seconds:g}",
        "pdu_seconds": f"{limits.pdu_timeout_seconds:g}",
        "artim": f"{limits.artim_seconds:g}",
        "max_instance": limits.max_instance_bytes,
        "timeout": f"{send.timeout_seconds:g}",
        "commitment_seconds": f"{send.commitment_seconds:g}",
        "first_seconds": f"{send.retry.first_seconds:g}",
        "ceiling_seconds": f"{send.retry.ceiling_seconds:g}",
        "give_up_days": f"{send.give_up_after_days:g}",
    }


def _created() -> Iterable[tuple[object, ...]]:
    made = {uid: syntax for _, uid, syntax in CREATED} | {KEY_OBJECTS: EXPLICIT}
    return ((_name(uid), f"`{uid}`", _name(syntax)) for uid, syntax in made.items())


def _services() -> Iterable[tuple[object, ...]]:
    both = [("Verification", contexts.VERIFICATION, "yes", "yes")]
    on_request = "to peers with `commit_here: true`"
    query = [
        ("Query/Retrieve", uid, "yes", "no")
        for uid in (STUDY_ROOT_FIND, retrieve.STUDY_ROOT_MOVE, retrieve.STUDY_ROOT_GET)
    ]
    commitment = [("Storage Commitment", PUSH_MODEL, "yes", on_request)]
    for service, uid, scu, scp in (*both, *commitment, *query):
        yield service, _name(uid), f"`{uid}`", scu, scp
    yield "Storage", "those of 1.1, created", "", "yes", "yes"
    yield "Storage", "those of 1.1, received", "", "no", "yes"


def _objects() -> Iterable[tuple[object, ...]]:
    for kind in OBJECTS:
        for made, sop_class, syntax in CREATED:
            if made != kind:
                continue
            others = [other for other in INSTEAD[kind] if other != kind]
            if kind == SR:
                others = ["the next of these SOP Classes, or a report that names less"]
            names = _list(transfer_syntaxes(sop_class, syntax))
            yield f"`{kind}`", _name(sop_class), names, ", ".join(others) or "nothing"


def _initiated() -> Iterable[tuple[object, ...]]:
    simple = _list(requesting.UNCOMPRESSED)
    yield "results", "those of 1.1, created", "see 5.2.2, each in a context of its own", "SCU"
    for what, uid in (
        ("echo, and beside the others", contexts.VERIFICATION),
        ("storage commitment", PUSH_MODEL),
        ("query", STUDY_ROOT_FIND),
        ("fetch", retrieve.STUDY_ROOT_MOVE),
        ("fetch", retrieve.STUDY_ROOT_GET),
    ):
        yield what, f"{_name(uid)} `{uid}`", simple, "SCU"
    commitment = f"{_name(PUSH_MODEL)} `{PUSH_MODEL}`"
    yield "report on a commitment that a peer asked for", commitment, simple, "SCP"
    yield "fetch by C-GET", "those of 1.1, received, as the study has them", "those below", "SCP"


def _audit_messages() -> Iterable[tuple[str, str, str]]:
    at = datetime(2000, 1, 1, tzinfo=UTC)
    here = Here(node_id="", ae_title="", host="")
    made: dict[str, tuple[list[str], list[str]]] = {}
    for kind in sorted(AUDITED):
        message = message_of(Act(kind=kind, at=at), here)
        types, kinds = made.setdefault(message.event.meaning, ([], []))
        types += [one.meaning for one in message.types]
        kinds.append(f"`{kind}`")
    export = "into a folder in place of a network destination"
    made["Export"] = ([], [export])
    for event, (types, kinds) in sorted(made.items()):
        yield event, ", ".join(dict.fromkeys(types)), ", ".join(kinds)


def _said(status: int) -> str:
    return _outcome(classify_store_status(status), "delivered", "tries again", "gives up")


def _retrieved() -> Iterable[tuple[object, ...]]:
    cases = [(_hex(code), code, SubOperations()) for code in RETRIEVE_STATUSES]
    failed = ("`0xB000`, or failed sub-operations", 0xB000, SubOperations(failed=1, completed=1))
    for name, code, operations in (*cases, failed):
        outcome = judge(Retrieved(status=code, operations=operations))
        yield name, _outcome(outcome, "complete", "failed, may be repeated", "failed")


def _web_answers() -> Iterable[tuple[object, ...]]:
    for status in HTTP_STATUSES:
        outcome = classify_http(status, {}, {"": 0}, "")
        yield status, _outcome(outcome, "delivered", "tries again", "gives up")


def _outcome(outcome: Outcome, done: str, retry: str, refuse: str) -> str:
    if isinstance(outcome, Done):
        return f"{done}: {outcome.warning}" if outcome.warning else done
    what = retry if isinstance(outcome, Retry) else refuse
    return f"{what}: {outcome.detail} (`{outcome.code}`)"


def _named(uids: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((_name(uid), f"`{uid}`") for uid in uids)


def _name(uid: str) -> str:
    return UNNAMED.get(uid) or UID(uid).name


def _list(uids: Iterable[str]) -> str:
    return ", ".join(_name(uid) for uid in uids)


def _hex(status: int) -> str:
    return f"`0x{status:04X}`"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join((_row(heads), "|---" * len(heads) + "|", _rows(rows)))


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return "\n".join(_row(row) for row in rows)


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
