"""What codes mean in the words of who runs a PACS: what happened, and what to do.

For the operator's page. Why a series is refused stands in `reasons`; the detail beside a code says
what was found in the case at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dicomnode.domain.reasons import REASONS


@dataclass(frozen=True, slots=True)
class Saying:
    """What a code means."""

    what: str
    todo: str = ""


_SAYINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        # What comes in
        "DISK_FULL": (
            "The disk is nearly full: senders are told to try later, and nothing is taken.",
            "Make room, or move the storage folder. The node goes on by itself.",
        ),
        "INSTANCE_TOO_LARGE": (
            "An image is larger than this node takes.",
            "Raise limits.max_instance_bytes if the image is what it should be.",
        ),
        "CANNOT_UNDERSTAND": (
            "Something came that is not readable as DICOM, or lacks its UIDs. It is in quarantine.",
            "Mend the sender, and have it sent again; then discard the file.",
        ),
        "DATA_SET_DOES_NOT_MATCH": (
            "An image is another one than its sender announced. It is in quarantine.",
            "Mend the sender. Put the file back if it is what its own data set says.",
        ),
        "IDENTITY_CHANGED": (
            "An image came again with another patient, study or accession number. The study is"
            " held: nothing of it is analysed or sent.",
            "Find out which is right. The first: release the study. The second: leave it held, and"
            " send the corrected study with new UIDs.",
        ),
        "TWO_PATIENTS": (
            "One study came with two patients. It is held.",
            "Settle it at the source, and send each patient's images as a study of its own.",
        ),
        "PIXELS_NOT_COMPARED": (
            "An image came again in a form that cannot be compared here. The first copy is used.",
            "Look whether the two agree.",
        ),
        "PIXELS_DIFFER": (
            "An image came again under the same UID with other pixels. The first copy is used.",
            "The sender uses UIDs twice: mend it. The other copy is in quarantine.",
        ),
        "ASSOCIATION_REJECTED": (
            "The other side did not accept an association.",
            "Is the AE title of this node registered there?",
        ),
        "ASSOCIATION_ABORTED": (
            "A sender broke off in the midst. What was acknowledged is kept.",
            "Rare ones: nothing. Many: look at the network and the sender's time-outs.",
        ),
        "LATE_SLICE": (
            "Images came for a series that had been analysed. It is analysed again.",
            "See that readers use the newer report.",
        ),
        "REJECTED": (
            "A rejection note was honoured: its images take part in no analysis.",
            "Results that were delivered have to be withdrawn at their archives by hand.",
        ),
        "REJECTION_NOT_TRUSTED": (
            "A rejection note came from a sender without authority. It has no effect.",
            "If it is right: peers.NAME.authority: true, restart, and send it again.",
        ),
        "RESULT_REJECTED": ("A rejection note names results of this node.", "Find out why."),
        "BYTES_MISSING": (
            "Files of the ledger are missing on disk.",
            "Something removed them. Restore them from the backup.",
        ),
        "BYTES_LOST": (
            "Images of a study have no file any more; they count as purged.",
            "Send the study again.",
        ),
        "RESULTS_UNKNOWN": (
            "Results lie in the spool that the ledger does not know. The study is held.",
            "Look in the archive: arrived, leave it held; not arrived, release it.",
        ),
        "INPUT_PURGED": (
            "Images came for a series whose other images are purged. They are not analysed alone.",
            "Send or fetch the whole series.",
        ),
        "COUNT_SHORT": (
            "An archive counts more images of the study than came here.",
            "Look at the archive's forwarding.",
        ),
        # What is chosen and analysed
        "BETTER_SERIES_LATE": (
            "A better series came when another one was analysed already.",
            "Lengthen the quiet times for this sender.",
        ),
        "CONTENT_HELD": (
            "The images contradict their headers. Results were made and wait for a person.",
            "Look at images and results. Right after all: release. Wrong: leave them held.",
        ),
        "DEMO_NOT_ALLOWED": (
            "Results of the demonstration model do not leave this machine.",
            "Use a real model.",
        ),
        "JOB_QUARANTINED": (
            "The analysis failed too often and was put aside.",
            "See the reason, mend it, then analyse again.",
        ),
        "JOB_REFUSED": (
            "The series cannot be analysed honestly, so nothing was sent.",
            "See the reason.",
        ),
        "WORKER_CRASHED": ("The analysis ended by itself.", "See the log of the role work."),
        "WORKER_KILLED": ("The analysis was killed.", "See the system's log for who did it."),
        "WORKER_OUT_OF_MEMORY": (
            "The system ended the analysis for lack of memory.",
            "More memory, or keep such large series out by a rule.",
        ),
        "WORKER_DIED": ("The worker died and was started again.", "See its log."),
        "WORKER_LOST": ("The worker fell silent.", "Does the role work run?"),
        "OUT_OF_MEMORY": (
            "The memory did not suffice for the analysis.",
            "More memory, or keep such large series out by a rule.",
        ),
        "TIMEOUT": (
            "The analysis took longer than it may.",
            "Raise work.timeout_seconds, or use a GPU.",
        ),
        "ANALYSIS_FAILED": ("Something unforeseen happened.", "See the log of the role work."),
        "STORAGE_FAILED": ("The disk or the database could not be written.", "Look at both."),
        "MODEL_NOT_AVAILABLE": (
            "The rule's model is not installed, or its files are not those of its card.",
            "Install it; `dicomnode check` names it.",
        ),
        "MIXED_UP": ("An analysis came back for another series; it was thrown away.", "Report it."),
        "CANCELLED_BY_USER": ("A person cancelled it.", ""),
        "SUPERSEDED": ("Later images made it out of date.", ""),
        # What is sent
        "DELIVERY_REFUSED": (
            "The archive does not take a result, and trying again would end the same way.",
            "See the reason, mend it at the archive, then send again.",
        ),
        "DESTINATION_AWAY": ("An archive does not answer. The node keeps trying.", ""),
        "AUDIT_AWAY": (
            "The audit trail cannot be written. What happens is recorded and waits.",
            "The detail names the place and why: the disk, or the audit repository, its port and"
            " certificate.",
        ),
        "AUDIT_FULL": (
            "So many records wait for the audit trail that no more are kept. They are counted.",
            "Mend the place that cannot be written; a message then says how many are missing.",
        ),
        "DESTINATION_STILL_AWAY": (
            "An archive has not answered for an hour. The node keeps trying.",
            "Is it up? Host, port, firewall, its log.",
        ),
        "RESULT_LATE": ("Results have not arrived in the agreed time.", "See what they wait for."),
        "IDENTITY_DIFFERS": (
            "The archive says that the study is another patient's, or another order's. The results"
            " are held.",
            "Find out which is right. The results: release the study. The archive: leave held.",
        ),
        "DELIVERED_AFTER_CANCEL": (
            "A result arrived at the archive although it had been stopped.",
            "Look at the study there.",
        ),
        "NO_CONNECTION": ("The archive cannot be reached.", "Is it up? Host, port, firewall."),
        "TLS_FAILED": ("No TLS with the archive.", "Certificates on both sides."),
        "ABORTED": ("The archive broke the association off.", "Look at its log."),
        "NO_RESPONSE": ("The archive did not answer in time; it is sent again.", ""),
        "CONTEXT_REFUSED": (
            "The archive does not accept this kind of object.",
            "Enable it there, or choose another profile for the destination.",
        ),
        "SOP_CLASS_NOT_SUPPORTED": (
            "The archive does not accept this kind of object.",
            "Enable it there, or choose another profile for the destination.",
        ),
        "NOT_AUTHORIZED": ("The archive does not let this node store.", "Allow it there."),
        "REFERS_TO_REFUSED": ("It names an object that the archive refused.", "See that object."),
        "BYTES_CHANGED": ("A result's file is not the one that was recorded.", "Look at the disk."),
        "GAVE_UP": ("It was tried for days in vain.", "Send again once the archive is back."),
        "COMMITMENT_REFUSED": (
            "The archive does not take responsibility for a result that it took.",
            "Look at its log; then send again.",
        ),
        "COMMITMENT_SILENT": (
            "The archive does not say whether it keeps the results.",
            "Does it know this node's AE title, host and port?",
        ),
        "COMMITMENT_NOT_OFFERED": (
            "The archive offers no storage commitment.",
            "Enable it there, or commitment: off.",
        ),
        "PROMISE_NOT_TOLD": (
            "A sender that asked this node to keep its images could not be told the answer.",
            "Host, port, firewall of the peer. What was promised is kept.",
        ),
        "WITHDRAW_BY_HAND": (
            "An archive has results that are withdrawn, and takes no rejection notes.",
            "Have them removed there.",
        ),
        "NO_SECRET": (
            "The password or token for the archive is not where the configuration says.",
            "Put it there.",
        ),
        "STORED_WITH_WARNING": ("The archive took it with a warning.", "Look at its log."),
        "COERCED": (
            "The archive changed what was sent to it.",
            "Find out what: results must carry the patient as the images do.",
        ),
        "DEIDENTIFIED_TO_CLINICAL": (
            "The images are de-identified, and the destination is clinical.",
            "kind: research for the destination, if it is.",
        ),
        "IDENTIFIED_TO_RESEARCH": (
            "The images are not de-identified, and the destination is for research.",
            "Send de-identified images.",
        ),
        "IDENTITY_NOT_COMPARED": ("The archive did not say whose the study is.", ""),
        "SENDER_LOST": ("The sender died while it was under way; it is sent again.", ""),
    }
)


def saying(code: str | None) -> Saying:
    """Return what a code means; of one that is not listed, the code itself."""
    if not code:
        return Saying("")
    if code in REASONS:
        return Saying(REASONS[code])
    if code in _SAYINGS:
        return Saying(*_SAYINGS[code])
    for begin in ("STATUS_", "HTTP_"):
        if code.startswith(begin):
            status = code.removeprefix(begin)
            return Saying(f"The archive answered with status {status}.", "Look at its log.")
    return Saying(code.replace("_", " ").capitalize() + ".")


def is_said(code: str) -> bool:
    """Whether there are words for a code."""
    return code in REASONS or code in _SAYINGS
