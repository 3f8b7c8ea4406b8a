"""What an analysis that ended well leaves: its results, their deliveries, and what they replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from sqlalchemy import select

from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.alternatives import first_choice
from dicomnode.domain.content import CONTENT_HELD
from dicomnode.domain.findings import Finding
from dicomnode.domain.lifecycle import ARRIVED, HELD, PENDING
from dicomnode.domain.plans import SR, Predecessor
from dicomnode.domain.records import Job, StoredResult
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.tables import (
    delivery,
    job,
    result,
    study,
)


def predecessors(tx: Transaction, claimed: Job) -> tuple[Predecessor, ...]:
    """Return what this job's report replaces: the newest report that was delivered.

    Destinations may have it in several forms, each an instance of its own: all are replaced.
    """
    rows = tx.connection.execute(
        select(
            result.c.series_uid,
            result.c.sop_class_uid,
            result.c.sop_instance_uid,
            result.c.position,
            job.c.generation,
        )
        .join(job, job.c.id == result.c.job_id)
        .join(delivery, delivery.c.result_id == result.c.id)
        .where(
            job.c.series_id == claimed.series_id,
            job.c.model_id == claimed.model_id,
            job.c.generation < claimed.generation,
            result.c.kind == SR,
            delivery.c.state.in_(ARRIVED),
        )
        .distinct()
        .order_by(job.c.generation.desc(), result.c.position)
    ).all()
    return tuple(
        Predecessor(
            study_uid=claimed.study_uid,
            series_uid=row.series_uid,
            sop_class_uid=row.sop_class_uid,
            sop_instance_uid=row.sop_instance_uid,
        )
        for row in rows
        if row.generation == rows[0].generation
    )


def finish(
    tx: Transaction,
    claimed: Job,
    results: Sequence[StoredResult],
    *,
    deliver_to: Mapping[str, Sequence[str]],
    not_allowed: Sequence[str],
    label_map_path: str,
    label_map_digest: str,
    findings: Sequence[str],
    timings: dict[str, float],
    coded: Sequence[Finding] = (),
    held: Sequence[str] = (),
) -> bool:
    """Record the result set and its deliveries; False means that another attempt was first.

    Of a study that is held since the analysis began, the deliveries are held as well.

    Args:
        deliver_to: destinations, and the kinds of results that each gets.
        not_allowed: destinations of the rule that a demonstration model's results may not go to.
        coded: what the checks found; their sentences are among `findings`.
        held: codes of those for which the results wait for a person.
    """
    # Locked first, as intake does: who holds the study now sees these deliveries, or they see it.
    whole = tx.connection.execute(
        select(study.c.state, study.c.hold_reason)
        .where(study.c.id == claimed.study_id)
        .with_for_update(key_share=True)
    ).one()
    hold_reason = whole.hold_reason if whole.state == HELD else CONTENT_HELD if held else None
    done = tx.move(
        job,
        claimed.id,
        "done",
        job.c.attempt == claimed.attempt,
        lease_until=None,
        stage="done",
        progress=1.0,
        reason=None,
        detail="",
        findings=list(findings),
        coded=[{**asdict(seen), "held": seen.code in held} for seen in coded],
        timings=timings,
        label_map_path=label_map_path,
        label_map_digest=label_map_digest,
        updated_at=tx.now,
    )
    if not done:
        return False
    _insert_results(tx, claimed, results, deliver_to, hold_reason)

    record = partial(tx.event, study=claimed.study_id, series=claimed.series_id, job=claimed.id)
    record("JOB_DONE", detail=f"{len(results)} result instances")
    for name in not_allowed:
        detail = f"results of a demonstration model do not go to {name}, which is not loopback"
        record("DEMO_NOT_ALLOWED", level=ATTENTION, detail=detail)
    for name in (name for name, kinds in deliver_to.items() if not first_choice(results, kinds)):
        record("NOTHING_TO_DELIVER", detail=f"{name} takes none of the objects that were made")
    for seen in coded:
        level = "info" if seen.severity == "info" else "warning"
        record(seen.code, level=level, detail=seen.sentence)
    told = {seen.sentence for seen in coded}
    for sentence in (sentence for sentence in findings if sentence not in told):
        record("FINDING", level="warning", detail=sentence)
    if held:
        detail = f"{', '.join(held)}: the results wait for `dicomnode release`"
        record(CONTENT_HELD, level=ATTENTION, detail=detail)
    return True


def _insert_results(
    tx: Transaction,
    claimed: Job,
    results: Sequence[StoredResult],
    deliver_to: Mapping[str, Sequence[str]],
    hold_reason: str | None,
) -> None:
    goes = {
        name: {item.sop_instance_uid for item in first_choice(results, kinds)}
        for name, kinds in deliver_to.items()
    }
    for item in results:
        result_id = tx.insert(
            result,
            job_id=claimed.id,
            kind=item.kind,
            position=item.position,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            series_uid=item.series_uid,
            transfer_syntax_uid=item.transfer_syntax_uid,
            path=item.path,
            digest=item.digest,
            size=item.size,
            summary=item.summary,
            refers_to=list(item.refers_to),
            created_at=tx.now,
        )
        for name in (name for name, uids in goes.items() if item.sop_instance_uid in uids):
            tx.insert(
                delivery,
                result_id=result_id,
                job_id=claimed.id,
                node_id=tx.node_id,
                destination=name,
                position=item.position,
                state=PENDING if hold_reason is None else HELD,
                reason=hold_reason,
                due_at=tx.now,
                created_at=tx.now,
                updated_at=tx.now,
            )
