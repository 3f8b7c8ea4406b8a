"""Short words for the tests of the ledger: instances that come, jobs that are made and end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Table, select

from dicomnode.domain import admission
from dicomnode.domain.admission import Decision
from dicomnode.domain.assembly import AssemblyPolicy, Close
from dicomnode.domain.choosing import CHOSEN_ALL, NO_RULE, Before, Verdict
from dicomnode.domain.findings import Finding
from dicomnode.domain.identifiers import (
    InstanceUID,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    TransferSyntaxUID,
)
from dicomnode.domain.outcomes import Done, Outcome, Refuse, Retry
from dicomnode.domain.plans import ModelOptions
from dicomnode.domain.records import Delivery, Header, Job, SeriesFacts, StoredResult
from dicomnode.domain.routing import Choice
from dicomnode.domain.series import NOTHING_COUNTS
from dicomnode.ledger import (
    Ledger,
    Transaction,
    closing,
    completing,
    deliveries,
    intake,
    jobs,
    knowing,
    rejections,
)
from dicomnode.ledger.choosing import Chooser

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
QUIET_SECONDS = 60.0
POLICY = AssemblyPolicy(study_quiet_seconds=QUIET_SECONDS, series_quiet_seconds=QUIET_SECONDS)
LEASE = timedelta(seconds=30)


def header(
    sop: str = "1.2.3.1", *, study: str = "1.2", series: str = "1.2.3", **changes: Any
) -> Header:
    """Return the header of a CT instance."""
    made = Header(
        study_uid=StudyUID(study),
        series_uid=SeriesUID(series),
        sop_instance_uid=InstanceUID(sop),
        sop_class_uid=SOPClassUID(CT),
        transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
        patient_key=PatientKey("patient"),
        identity_digest="identity",
        pixel_digest=hashlib.sha256(sop.encode()).hexdigest(),
        geometry_digest=hashlib.sha256(sop.encode()).hexdigest(),
        modality="CT",
        series_number=1,
        series_description="thorax",
        body_part="CHEST",
        slice_thickness_mm=1.0,
        made_by_this_software=False,
    )
    return replace(made, **changes)


def decide(tx: Transaction, given: Header, digest: str | None = None) -> Decision:
    """Decide on an instance as the receiver does, by what the ledger knows."""
    known = knowing.known(tx, given)
    return admission.decide(
        given,
        request_sop_class_uid=given.sop_class_uid,
        request_sop_instance_uid=given.sop_instance_uid,
        digest=digest or digest_of(given),
        known=known.instance,
        study_patient=known.study_patient,
        is_own_result=known.is_own_result,
        is_rejected=known.is_rejected,
    )


def digest_of(given: Header) -> str:
    """Return a digest that stands for the bytes of an instance."""
    return hashlib.sha256(repr(given).encode()).hexdigest()


def come(
    tx: Transaction,
    given: Header,
    association: int | None = None,
    policy: AssemblyPolicy = POLICY,
    *,
    trusted: bool = False,
) -> Decision:
    """Let an instance come: what the receiver does in its transaction, without the bytes."""
    decision = decide(tx, given)
    stored = decision.fate in (admission.Fate.STORE, admission.Fate.STORE_ASIDE)
    if not stored:
        intake.record_only(tx, given, decision, association)
        rejections.consider(tx, given, decision, policy, trusted=trusted)
        return decision
    intake.add(
        tx,
        given,
        decision,
        digest=digest_of(given),
        size=1000,
        path=f"instances/{given.study_uid}/{given.series_uid}/{given.sop_instance_uid}.dcm",
        association_id=association,
        policy=policy,
        counts=decision.fate is admission.Fate.STORE,
    )
    rejections.consider(tx, given, decision, policy, trusted=trusted)
    return decision


def receive(ledger: Ledger, *headers: Header) -> None:
    """Let instances come, each in a transaction of its own."""
    for given in headers:
        with ledger.transaction() as tx:
            come(tx, given)


def to_demo(_series: SeriesFacts) -> Choice:
    """Choose the demonstration model and one archive for every series."""
    return Choice(
        model="demo",
        rule="all",
        destinations=("archive",),
        why="rule 'all'",
        options=ModelOptions(mode="exact", structures=("liver",)),
    )


def each(choose: Callable[[SeriesFacts], Choice]) -> Chooser:
    """Return a chooser that asks `choose` of every series and takes whatever gets a model."""

    def chooser(
        study: Sequence[SeriesFacts], _before: Before, allowed: Callable[[Choice], Choice], /
    ) -> dict[str, Verdict]:
        found = {}
        for facts in study:
            choice = allowed(choose(facts))
            code = CHOSEN_ALL if choice.model else NO_RULE
            if not facts.instances:
                code, choice = NOTHING_COUNTS, replace(choice, model=None, destinations=())
            uid = facts.series_uid
            found[uid] = Verdict(series_uid=uid, code=code, why=choice.why, choice=choice)
        return found

    return chooser


def close(
    ledger: Ledger,
    policy: AssemblyPolicy | None = None,
    choose: Callable[[SeriesFacts], Choice] = to_demo,
) -> int:
    """Close what is due; return how many studies."""
    count = 0
    while True:
        with ledger.transaction() as tx:
            decided = closing.close_due_study(tx, each(choose), policy or POLICY)
        if decided is None:
            return count
        count += isinstance(decided, Close)


def claim(
    ledger: Ledger, worker: str = "node-1:work", not_models: tuple[str, ...] = ()
) -> Job | None:
    """Lease a job."""
    with ledger.transaction() as tx:
        return jobs.claim(tx, worker, LEASE, not_models)


def claimed(ledger: Ledger) -> Job:
    """Lease a job that must be there."""
    job = claim(ledger)
    assert job is not None
    return job


def results_of(job: Job, kinds: tuple[str, ...] = ("seg", "sr")) -> list[StoredResult]:
    """Return a result set whose UIDs are decided by job and generation.

    `sr:seg,preview` is a report that names these; `sr` names the segmentation, if there is one.
    """
    made = []
    for position, text in enumerate(kinds):
        kind, _, named = text.partition(":")
        if text == "sr" and "seg" in kinds:
            named = "seg"
        made.append(_result(job, kind, position, tuple(filter(None, named.split(",")))))
    return made


def _result(job: Job, kind: str, position: int, refers_to: tuple[str, ...]) -> StoredResult:
    return StoredResult(
        kind=kind,
        position=position,
        refers_to=refers_to,
        sop_class_uid=SOPClassUID(f"1.2.840.{position}"),
        sop_instance_uid=InstanceUID(f"2.25.{job.id}.{position}"),
        series_uid=SeriesUID(f"2.25.{job.id}"),
        transfer_syntax_uid=TransferSyntaxUID(EXPLICIT),
        path=f"results/{job.id}/{kind}.dcm",
        digest="d",
        size=1,
        summary={"segments": 3},
    )


def _profile(kinds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(kind.partition(":")[0] for kind in kinds))


def finish(
    ledger: Ledger,
    job: Job,
    *,
    to: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("archive",),
    kinds: tuple[str, ...] = ("seg", "sr"),
    not_allowed: tuple[str, ...] = (),
    findings: tuple[str, ...] = (),
    coded: tuple[Finding, ...] = (),
    held: tuple[str, ...] = (),
    results: Sequence[StoredResult] | None = None,
) -> bool:
    """Record a result set of a job; `results`: these, and not invented ones of the kinds."""
    with ledger.transaction() as tx:
        return completing.finish(
            tx,
            job,
            results_of(job, kinds) if results is None else results,
            deliver_to=to if isinstance(to, Mapping) else dict.fromkeys(to, _profile(kinds)),
            not_allowed=not_allowed,
            label_map_path=f"results/{job.id}/labels.npz",
            label_map_digest="digest",
            findings=(*(seen.sentence for seen in coded), *findings),
            timings={"predict": 1.5},
            coded=coded,
            held=held,
        )


def fail(
    ledger: Ledger,
    job: Job,
    outcome: Retry | Refuse,
    *,
    max_failures: int = 3,
    wait: float = 10.0,
    counts: bool = True,
) -> bool:
    """Record a failed attempt."""
    with ledger.transaction() as tx:
        return jobs.fail(
            tx,
            job,
            outcome,
            max_failures=max_failures,
            wait=timedelta(seconds=wait),
            counts=counts,
        )


def analysed(
    ledger: Ledger,
    clock: Any,
    *headers: Header,
    to: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ("archive",),
    kinds: tuple[str, ...] = ("seg", "sr"),
) -> Job:
    """Let a series come, close its study, and record its results."""
    receive(ledger, *(headers or (header(),)))
    clock.forward(QUIET_SECONDS)
    assert close(ledger) == 1
    job = claimed(ledger)
    assert finish(ledger, job, to=to, kinds=kinds)
    return job


def take(ledger: Ledger, destination: str = "archive") -> Delivery | None:
    """Claim the next delivery."""
    with ledger.transaction() as tx:
        return deliveries.claim(tx, destination)


def taken(ledger: Ledger, destination: str = "archive") -> Delivery:
    """Claim a delivery that must be there."""
    delivery = take(ledger, destination)
    assert delivery is not None
    return delivery


def settle(
    ledger: Ledger,
    delivery: Delivery,
    outcome: Outcome | None = None,
    *,
    status: int | None = 0,
    wait: float = 10.0,
) -> None:
    """Record what an attempt to deliver came to; Done by default."""
    with ledger.transaction() as tx:
        deliveries.finish(
            tx,
            delivery,
            outcome or Done(),
            status=status,
            wait=timedelta(seconds=wait),
            give_up_after=timedelta(days=14),
        )


def deliver_all(ledger: Ledger) -> int:
    """Deliver whatever is due; return how many objects."""
    count = 0
    while (delivery := take(ledger)) is not None:
        settle(ledger, delivery)
        count += 1
    return count


def rows(ledger: Ledger, table: Table) -> list[Any]:
    """Return a table's rows, oldest first."""
    with ledger.transaction() as tx:
        return list(tx.connection.execute(select(table).order_by(table.c.id)).all())


def states(ledger: Ledger, table: Table) -> list[str]:
    """Return the states of a table's rows, oldest first."""
    return [row.state for row in rows(ledger, table)]


def events(ledger: Ledger) -> list[tuple[str, str]]:
    """Return (code, level) of all events, oldest first."""
    from dicomnode.ledger.tables import event

    return [(row.code, row.level) for row in rows(ledger, event)]
