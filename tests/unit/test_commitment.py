"""What a report on storage commitment means, and which bytes are one."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import write_dataset

from dicomnode.domain.commitment import (
    CommitmentReport,
    Verdict,
    answer_for,
    judge,
    may_be_purged,
)
from dicomnode.instances import UnreadableError, reports

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"


def encoded(dataset: Dataset, *, implicit: bool = False) -> bytes:
    from pydicom.filebase import DicomBytesIO

    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def report(committed: tuple[str, ...] = (), **failed: int) -> CommitmentReport:
    return CommitmentReport(
        transaction_uid="1.2",
        committed=frozenset(committed),
        failed=tuple((uid.strip("_").replace("_", "."), why) for uid, why in failed.items()),
    )


def test_only_what_is_named_as_committed_and_not_as_failed_is() -> None:
    assert judge(report(("1.1",)), "1.1", 1) == (Verdict.COMMITTED, "")
    assert judge(report(("1.1",)), "1.2", 1)[0] is Verdict.RESEND
    assert judge(report(("1.1",), _1_1=0x0110), "1.1", 1)[0] is Verdict.RESEND


@pytest.mark.parametrize(
    ("reason", "attempts", "verdict"),
    [
        (0x0110, 1, Verdict.RESEND),
        (0x0112, 1, Verdict.RESEND),
        (0x0213, 4, Verdict.RESEND),
        (0x0112, 5, Verdict.REFUSED),
        (0x0131, 1, Verdict.ASK_AGAIN),
        (0x0131, 5, Verdict.REFUSED),
        (0x0119, 1, Verdict.REFUSED),
        (0x0122, 1, Verdict.REFUSED),
    ],
)
def test_every_failure_reason_has_its_consequence(
    reason: int, attempts: int, verdict: Verdict
) -> None:
    found, why = judge(report(_1_1=reason), "1.1", attempts)
    assert found is verdict
    assert f"0x{reason:04X}" in why


@pytest.mark.parametrize(
    ("states", "may"),
    [
        ((), True),
        (("COMMITTED", "CANCELLED", "SUBSTITUTED"), True),
        (("COMMITTED", "DELIVERED"), False),
        (("PENDING",), False),
        (("HELD",), False),
        (("REFUSED",), False),
    ],
)
def test_input_is_kept_until_all_is_committed(states: tuple[str, ...], may: bool) -> None:
    assert may_be_purged(states) is may


@pytest.mark.parametrize("implicit", [True, False])
def test_a_report_is_read_in_both_transfer_syntaxes(implicit: bool) -> None:
    information = reports.request("1.2.3", [("1.5", "1.6"), ("1.5", "1.7")])
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.5", "1.8"
    item.FailureReason = 0x0112
    information.FailedSOPSequence = [item]
    data = encoded(information, implicit=implicit)
    found = reports.parse(data, IMPLICIT if implicit else EXPLICIT)
    assert found == CommitmentReport(
        transaction_uid="1.2.3",
        committed=frozenset({"1.6", "1.7"}),
        failed=(("1.8", 0x0112),),
    )


def test_what_is_no_report() -> None:
    without = reports.request("1.2.3", [("1.5", "1.6")])
    del without.TransactionUID
    wrong = reports.request("1.2.3", [("1.5", "no uid")])
    many = reports.request("1.2.3", [("1.5", "1.6")] * 10_001)
    for data in (b"", b"\x08\x00", b"\xff" * 100, *map(encoded, (without, wrong, many))):
        with pytest.raises(UnreadableError):
            reports.parse(data, EXPLICIT)


def test_a_request_names_all_that_it_is_about() -> None:
    again = Dataset.from_json(reports.request("1.2.3", [("1.5", "1.6")]).to_json())
    assert again.TransactionUID == "1.2.3"
    assert [item.ReferencedSOPInstanceUID for item in again.ReferencedSOPSequence] == ["1.6"]


def test_a_request_of_others_is_read() -> None:
    data = encoded(reports.request("1.2.3", [("1.5", "1.6"), ("1.5", "1.7")]))
    assert reports.parse_request(data, EXPLICIT) == ("1.2.3", (("1.5", "1.6"), ("1.5", "1.7")))
    empty = encoded(reports.request("1.2.3", []))
    wrong = encoded(reports.request("1.2.3", [("no uid", "1.6")]))
    for data in (b"", b"\x08\x00", empty, wrong):
        with pytest.raises(UnreadableError):
            reports.parse_request(data, EXPLICIT)


@pytest.mark.parametrize(
    ("found", "reason"),
    [(None, 0x0112), (("1.9", True), 0x0119), (("1.5", False), 0x0110), (("1.5", True), None)],
)
def test_to_what_this_node_commits(found: tuple[str, bool] | None, reason: int | None) -> None:
    assert answer_for("1.5", found) == reason
