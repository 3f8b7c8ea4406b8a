"""Reports on storage commitment that this node gives: N-EVENT-REPORT as the SCP (PS3.4 J.3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from dicomnode.domain.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE
from dicomnode.domain.outcomes import Done, Outcome, Retry, classify_action_status
from dicomnode.instances import reports
from dicomnode.network.requesting import UNCOMPRESSED, Call, ConnectError, Proposal, called

ALL_COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs."""


def report(
    call: Call,
    transaction_uid: str,
    committed: Sequence[tuple[str, str]],
    failed: Sequence[tuple[str, str, int]],
) -> Outcome:
    """Tell a peer, over an association of our own, what is kept for it.

    Args:
        call: the peer.
        transaction_uid: of its request.
        committed: SOP Class and SOP Instance UIDs.
        failed: the same, and the Failure Reason.
    """
    information = reports.event(transaction_uid, committed, failed)
    proposal = Proposal(abstract_syntax=PUSH_MODEL, transfer_syntaxes=UNCOMPRESSED, as_scp=True)
    try:
        with called(call, [proposal]) as association:
            status, _ = association.send_n_event_report(
                information,
                SOME_FAILED if failed else ALL_COMMITTED,
                PUSH_MODEL,
                PUSH_MODEL_INSTANCE,
            )
    except ConnectError as error:
        return Retry(error.code, error.detail)
    except (RuntimeError, ValueError) as error:
        return Retry("CONTEXT_REFUSED", f"the peer takes no report ({type(error).__name__})")
    if "Status" not in status:
        return Retry("NO_RESPONSE", "no answer to the report")
    if status.Status == 0x0000:
        return Done()
    return classify_action_status(int(status.Status), "the peer refused the report")
