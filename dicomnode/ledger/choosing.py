"""Which series of a closing study are analysed: the facts for it, and what the verdicts do.

A study may close again and again, whenever something late has come. A series whose analysis is done
stays the choice; one that only waits or runs gives way to a better series that came since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Protocol

from sqlalchemy import Row, exists, select

from dicomnode.domain import choosing
from dicomnode.domain.admission import ATTENTION
from dicomnode.domain.assembly import AssemblyPolicy, days_too_old
from dicomnode.domain.choosing import Before, Standing, Verdict
from dicomnode.domain.describing import summary
from dicomnode.domain.images import ImageFacts, decode
from dicomnode.domain.lifecycle import CANCELLED, CLOSED, DONE, LEASED, QUARANTINED, QUEUED, REFUSED
from dicomnode.domain.records import SeriesFacts
from dicomnode.domain.retention import INPUT_PURGED
from dicomnode.domain.routing import Choice
from dicomnode.domain.series import NOTHING_COUNTS, Member, summarise
from dicomnode.domain.turns import urgency
from dicomnode.ledger.core import Transaction
from dicomnode.ledger.retention import lacks_bytes
from dicomnode.ledger.tables import association, event, instance, job, series, study


class Chooser(Protocol):
    """Decides on all series of a study: `domain.choosing.choose_series` with rules and policy."""

    def __call__(
        self,
        study: Sequence[SeriesFacts],
        before: Before,
        allowed: Callable[[Choice], Choice],
        /,
    ) -> Mapping[str, Verdict]: ...


def queue_jobs(
    tx: Transaction, study_row: Row[Any], chooser: Chooser, policy: AssemblyPolicy
) -> int:
    """Choose among the series of a study, record why, and queue the jobs; return how many."""
    rows = tx.connection.execute(select(series).where(series.c.study_id == study_row.id)).all()
    facts = series_facts(tx, study_row.id, rows)
    before = _before(tx, study_row.id)
    of_right_age = partial(of_age, study_row=study_row, policy=policy)
    verdicts = chooser(list(facts.values()), before, of_right_age)
    by_hand = _by_hand(tx, study_row.id)
    queued = 0
    for row in rows:
        verdict = verdicts[row.series_uid]
        if row.id in by_hand:
            continue  # a person has chosen it
        if verdict.code == NOTHING_COUNTS and _is_rejected(tx, row.id):
            verdict = replace(verdict, why="all its instances were rejected")
        verdict = _with_bytes(tx, row, verdict)
        _record(tx, study_row, row, verdict, facts[row.series_uid])
        if verdict.is_chosen:
            queued += _queue(tx, study_row, row, verdict.choice)
        elif verdict.code == choosing.BETTER_CHOSEN:
            _give_way(tx, row)
    if not any(verdict.is_chosen for verdict in verdicts.values()) and any(
        found.modality == "CT" for found in facts.values()
    ):
        tx.event(
            "NOTHING_CHOSEN",
            detail="no series is analysed; `dicomnode status --study` says of each why",
            study=study_row.id,
        )
    return queued


def analyze_by_hand(
    tx: Transaction, series_uid: str, decide: Callable[[SeriesFacts], Verdict], who: str
) -> Verdict | None:
    """Queue a job for a series of a closed study that another one was chosen over.

    Args:
        tx: of the ledger.
        series_uid: whose.
        decide: `domain.choosing.choose_alone` with rules and policy.
        who: asks for it.

    Returns:
        The verdict: chosen, or why it cannot be analysed; `None` where there is nothing to do: no
        such series, its study is open or held, or it has its job already.
    """
    row = tx.connection.execute(select(series).where(series.c.series_uid == series_uid)).first()
    if row is None:
        return None
    study_row = tx.connection.execute(
        select(study).where(study.c.id == row.study_id).with_for_update(key_share=True)
    ).one()
    if study_row.state != CLOSED:
        return None
    all_rows = tx.connection.execute(select(series).where(series.c.study_id == row.study_id)).all()
    facts = series_facts(tx, row.study_id, all_rows)[series_uid]
    verdict = _with_bytes(tx, row, decide(facts))
    if not verdict.is_chosen:
        return verdict
    if not _queue(tx, study_row, row, verdict.choice, by_hand=True):
        return None
    verdict = replace(verdict, code=choosing.CHOSEN_BY_HAND)
    _record(tx, study_row, row, verdict, facts)
    tx.connection.execute(
        event.update()
        .where(
            event.c.series_id == row.id,
            event.c.code == "BETTER_SERIES_LATE",
            event.c.resolved_at.is_(None),
        )
        .values(resolved_at=tx.now)
    )
    about = {"study": row.study_id, "series": row.id}
    tx.event("ANALYSIS_ASKED_FOR", detail=f"by {who}", by=who, **about)
    return verdict


def _by_hand(tx: Transaction, study_id: int) -> set[int]:
    """Return the series that a person had analysed, in their present generation."""
    found = tx.connection.execute(
        select(job.c.series_id)
        .join(series, series.c.id == job.c.series_id)
        .where(
            job.c.study_id == study_id,
            job.c.by_hand == 1,
            job.c.generation == series.c.generation,
        )
    )
    return set(found.scalars())


def _with_bytes(tx: Transaction, row: Row[Any], verdict: Verdict) -> Verdict:
    """Return the verdict, or one that waits for instances that are purged and came not again."""
    if not verdict.is_chosen or not lacks_bytes(tx, row.id):
        return verdict
    known = exists().where(
        job.c.series_id == row.id,
        job.c.model_id == verdict.choice.model,
        job.c.generation == row.generation,
    )
    if tx.connection.execute(select(known)).scalar_one():
        return verdict
    why = "instances of it are purged: send the series again, and it is analysed whole"
    nothing = replace(verdict.choice, model=None, destinations=())
    return replace(verdict, code=INPUT_PURGED, why=why, choice=nothing)


def _is_rejected(tx: Transaction, series_id: int) -> bool:
    of_series = exists().where(instance.c.series_id == series_id, instance.c.rejected.is_not(None))
    return bool(tx.connection.execute(select(of_series)).scalar_one())


def of_age(choice: Choice, *, study_row: Row[Any], policy: AssemblyPolicy) -> Choice:
    """Return the choice, or none for a study that was too old when it came."""
    if choice.model is None or choice.any_age or study_row.fetched_at is not None:
        return choice
    days = days_too_old(study_row.study_at, study_row.first_at, policy)
    if days is None:
        return choice
    why = f"{choice.why}, but the study was {days} days old when it came: kept, not analysed"
    return replace(choice, model=None, destinations=(), why=why)


def series_facts(
    tx: Transaction, study_id: int, rows: Sequence[Row[Any]]
) -> dict[str, SeriesFacts]:
    """Return the facts of each series of a study, with one query for all their instances."""
    members: dict[int, list[Member]] = {row.id: [] for row in rows}
    known: dict[str, ImageFacts] = {}
    for found in tx.connection.execute(
        select(
            instance.c.series_id,
            instance.c.sop_class_uid,
            instance.c.facts,
            instance.c.place_mm,
            association.c.calling_ae,
        )
        .join(series, series.c.id == instance.c.series_id)
        .join(association, association.c.id == instance.c.association_id, isouter=True)
        .where(series.c.study_id == study_id, instance.c.counts == 1)
    ):
        if found.facts not in known:
            known[found.facts] = decode(found.facts)
        members[found.series_id].append(
            Member(
                sop_class_uid=found.sop_class_uid,
                facts=known[found.facts],
                place_mm=found.place_mm,
                calling_ae=found.calling_ae,
            )
        )
    return {
        row.series_uid: summarise(
            members[row.id],
            series_uid=row.series_uid,
            series_number=row.series_number,
            modality=row.modality,
            body_part=row.body_part,
            description=row.description,
            slice_thickness_mm=row.slice_thickness_mm,
        )
        for row in rows
    }


_STANDINGS = {
    DONE: Standing.DONE,
    QUEUED: Standing.UNDER_WAY,
    LEASED: Standing.UNDER_WAY,
    REFUSED: Standing.REFUSED,
    QUARANTINED: Standing.UNDER_WAY,  # the machine failed, not the series: a person decides
}


def _before(tx: Transaction, study_id: int) -> Before:
    """Return what became of each series and model; what was done once stays done."""
    found: dict[tuple[str, str], Standing] = {}
    for row in tx.connection.execute(
        select(
            series.c.series_uid,
            series.c.generation.label("present"),
            job.c.model_id,
            job.c.generation,
            job.c.state,
        )
        .join(series, series.c.id == job.c.series_id)
        .where(job.c.study_id == study_id)
        .order_by(job.c.generation, job.c.id)
    ):
        standing = _STANDINGS.get(row.state)
        if standing is Standing.DONE or (standing is not None and row.generation == row.present):
            key = (row.series_uid, row.model_id)
            if found.get(key) is not Standing.DONE:
                found[key] = standing
    return found


def _record(
    tx: Transaction, study_row: Row[Any], row: Row[Any], verdict: Verdict, facts: SeriesFacts
) -> None:
    tx.connection.execute(
        series.update()
        .where(series.c.id == row.id)
        .values(
            chosen_model=verdict.choice.model,
            choice_code=verdict.code,
            choice=verdict.why,
            summary=summary(facts),
        )
    )
    if verdict.code == INPUT_PURGED and row.choice_code != verdict.code:
        tx.event(
            INPUT_PURGED,
            level=ATTENTION,
            detail=f"something came for series {row.series_number}, and the rest of it is purged:"
            " it is not analysed alone",
            study=study_row.id,
            series=row.id,
        )
    if verdict.code == choosing.CAME_TOO_LATE and row.choice_code != verdict.code:
        tx.event(
            "BETTER_SERIES_LATE",
            level=ATTENTION,
            detail=f"series {row.series_number} is better than the one that was analysed before it"
            " came; `dicomnode status --study` says by what",
            study=study_row.id,
            series=row.id,
        )


def _queue(
    tx: Transaction,
    study_row: Row[Any],
    series_row: Row[Any],
    choice: Choice,
    *,
    by_hand: bool = False,
) -> int:
    generation = _generation(tx, series_row, choice)
    inserted = tx.insert_once(
        job,
        study_id=study_row.id,
        series_id=series_row.id,
        node_id=study_row.node_id,
        model_id=choice.model,
        generation=generation,
        identity_revision=study_row.identity_revision,
        rule=choice.rule or "",
        destinations=list(choice.destinations),
        options=asdict(choice.options),
        monoenergetic=int(choice.monoenergetic),
        by_hand=int(by_hand),
        urgency=urgency(rule_says_stat=choice.stat, requested=series_row.requested_priority),
        state=QUEUED,
        due_at=tx.now,
        created_at=tx.now,
        updated_at=tx.now,
    )
    return int(inserted)


def _generation(tx: Transaction, series_row: Row[Any], choice: Choice) -> int:
    """Return the series' generation: a new one where its job has given way to another series."""
    present: int = series_row.generation
    gave_way = tx.connection.execute(
        select(job.c.id).where(
            job.c.series_id == series_row.id,
            job.c.model_id == choice.model,
            job.c.generation == present,
            job.c.state == CANCELLED,
            job.c.reason == choosing.BETTER_CHOSEN,
        )
    ).first()
    if gave_way is None:
        return present
    tx.connection.execute(
        series.update().where(series.c.id == series_row.id).values(generation=present + 1)
    )
    return present + 1


def _give_way(tx: Transaction, series_row: Row[Any]) -> None:
    """Cancel what waits or runs of a series that is no longer the choice."""
    for row in tx.connection.execute(
        select(job.c.id, job.c.study_id).where(
            job.c.series_id == series_row.id,
            job.c.generation == series_row.generation,
            job.c.state.in_((QUEUED, LEASED)),
        )
    ).all():
        if tx.move(job, row.id, "cancel", reason=choosing.BETTER_CHOSEN, updated_at=tx.now):
            tx.event(
                "CHOICE_CHANGED",
                detail=f"a better series than {series_row.series_number} has come",
                study=row.study_id,
                series=series_row.id,
                job=row.id,
            )
