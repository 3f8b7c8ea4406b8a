"""Histories of studies, told to a real ledger, and what must hold of each of them.

`World` keeps a ledger, a clock that stands, and its own simple account of what came, closed, was
analysed and delivered. It knows nothing of how the ledger decides; each `check_` is a sentence of
docs/adr/0008-when-a-study-closes.md.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ledger_kit import LEASE, POLICY, claim, close, come, deliver_all, finish, header, results_of
from sqlalchemy import select

from dicomnode.domain.admission import Fate
from dicomnode.domain.identifiers import InstanceUID, SeriesUID
from dicomnode.domain.outcomes import Retry
from dicomnode.domain.records import EndSign, Header, Job, Rejection
from dicomnode.ledger import Ledger, answers, jobs
from dicomnode.ledger.tables import delivery, job, metadata, result, series, study

SLOW = replace(POLICY, study_quiet_seconds=150.0)
"""Of a peer that needs longer."""
SIZES = (3, 2)
"""Instances of each series of a study. The first says how many it has, the second does not."""
LONGEST = POLICY.max_open_seconds + POLICY.count_wait_seconds


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Account:
    """What really happened to one study since it was opened."""

    opened_at: datetime
    arrivals: list[tuple[datetime, float]] = field(default_factory=list)
    """When something came, and how long its peer says that must be quiet."""
    answers: list[tuple[datetime, dict[str, int]]] = field(default_factory=list)


class World:
    """A ledger, and an account of it."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.url = url
        self.ledger = Ledger(url, "node-1", self.clock)
        metadata.create_all(self.ledger.engine)

    def begin(self) -> None:
        """Forget everything."""
        with self.ledger.transaction() as tx:
            for table in reversed(metadata.sorted_tables):
                tx.connection.execute(table.delete())
            tx.connection.execute(
                metadata.tables["node"]
                .insert()
                .values(id="node-1", started_at=tx.now, ae_title="A", patient_key_id="k", claims=0)
            )
        self.here: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.rejected: set[str] = set()
        self.open: dict[str, Account] = {}
        self.contents: dict[int, tuple[str, frozenset[str]]] = {}
        self.done: dict[str, list[frozenset[str]]] = defaultdict(list)
        self.leased: Job | None = None
        self.ours: list[str] = []

    # What happens

    def wait(self, seconds: float) -> None:
        self.clock.now += timedelta(seconds=seconds)
        self.tick()

    def restart(self) -> None:
        """All roles end and begin again: nothing but the ledger is left."""
        self.ledger.close()
        self.ledger = Ledger(self.url, "node-1", self.clock)

    def instance(self, which: int, row: int, number: int) -> Header:
        uid = f"1.2.{which}"
        row, number = row % len(SIZES), number % SIZES[row % len(SIZES)]
        end = EndSign(group="A1", total=SIZES[0], number=number + 1) if row == 0 else None
        return header(f"{uid}.{row}.{number}", study=uid, series=f"{uid}.{row}", end=end)

    def arrive(self, which: int, row: int, number: int, slow: bool) -> None:
        """An instance comes, for the first time or again."""
        given = self.instance(which, row, number)
        policy = SLOW if slow else POLICY
        with self.ledger.transaction() as tx:
            decision = come(tx, given, policy=policy)
        members = self.here[given.study_uid][given.series_uid]
        is_new = given.sop_instance_uid not in members
        assert (decision.fate is Fate.DROP) is not is_new
        members.add(given.sop_instance_uid)
        if is_new and decision.fate is Fate.STORE:
            account = self.open.setdefault(given.study_uid, Account(self.clock.now))
            account.arrivals.append((self.clock.now, policy.study_quiet_seconds))
            self.check_called_back(given.series_uid)

    def answer(self, which: int, has_more: bool) -> None:
        """The archive says what it has: what lies here, or more."""
        uid = f"1.2.{which}"
        if uid not in self.here:
            return
        counts = {name: len(members) for name, members in self.here[uid].items()}
        if has_more:
            counts[min(counts)] += 1
        with self.ledger.transaction() as tx:
            row = tx.connection.execute(select(study.c.id).where(study.c.study_uid == uid)).one()
            question = answers.Question(study_id=row.id, study_uid=uid, asked_at=tx.now)
            told = {SeriesUID(name): count for name, count in counts.items()}
            answers.record(tx, question, "PACS", told)
        if uid in self.open:
            self.open[uid].answers.append((self.clock.now, counts))
        self.tick()

    def reject(self, which: int, row: int, number: int) -> None:
        """A trusted peer rejects an instance that is here."""
        members = self.here.get(f"1.2.{which}", {}).get(f"1.2.{which}.{row}", set())
        if not members:
            return
        wanted = sorted(members)[number % len(members)]
        named = self.instance(which, row, int(wanted.rsplit(".", 1)[1]))
        note = header(
            f"{named.sop_instance_uid}.8",
            study=named.study_uid,
            series=f"{named.study_uid}.8",
            modality="KO",
            rejection=Rejection(code="113001", instances=(InstanceUID(named.sop_instance_uid),)),
        )
        if self._has(note):
            return
        with self.ledger.transaction() as tx:
            come(tx, note, trusted=True)
        self.rejected.add(named.sop_instance_uid)
        self.check_called_back(named.series_uid)
        self.here[note.study_uid][note.series_uid].add(note.sop_instance_uid)
        account = self.open.setdefault(note.study_uid, Account(self.clock.now))
        account.arrivals.append((self.clock.now, POLICY.study_quiet_seconds))

    def echo(self) -> None:
        """The archive routes one of our results back: nothing may change."""
        if not self.ours:
            return
        before = self._standing()
        with self.ledger.transaction() as tx:
            decision = come(tx, header(self.ours[-1], study="1.2.0", series="2.25.7"))
        assert decision.code == "OWN_RESULT"
        assert self._standing() == before

    def _has(self, given: Header) -> bool:
        members = self.here.get(given.study_uid, {})
        return given.sop_instance_uid in members.get(given.series_uid, ())

    def _standing(self) -> list[Any]:
        with self.ledger.transaction() as tx:
            return [
                tx.connection.execute(select(table)).all()
                for name, table in metadata.tables.items()
                if name != "event"
            ]

    def tick(self) -> None:
        """Close what is due, and check that it was right to."""
        before = set(self.open)
        close(self.ledger)
        for row in self._studies():
            if row.study_uid in before and row.state == "CLOSED":
                self.check_closed(row, self.open.pop(row.study_uid))

    def analyse(self, how: str, arrives: bool) -> None:
        """A worker begins, ends or dies, or does all there is; its results arrive, or not yet."""
        if how == "all":
            for _ in range(200):
                self.finish()
                self.claim()
                if self.leased is None:
                    break
        else:
            getattr(self, how)()
        if arrives:
            deliver_all(self.ledger)

    def claim(self) -> None:
        """A worker takes the next job, if it has none."""
        if self.leased is None:
            self.leased = claim(self.ledger)
            if self.leased is not None:
                self.check_claimed(self.leased)

    def finish(self) -> None:
        """The worker is done; its results count unless the job was called back."""
        leased, self.leased = self.leased, None
        if leased is not None and finish(self.ledger, leased):
            self.done[leased.series_uid].append(self.contents[leased.id][1])
            self.ours += [str(one.sop_instance_uid) for one in results_of(leased)]

    def crash(self) -> None:
        """The worker dies, and its lease runs out."""
        self.leased = None
        self.wait(LEASE.total_seconds() + 1)
        with self.ledger.transaction() as tx:
            lost = Retry("WORKER_LOST", "silent")
            jobs.take_back(tx, lost, max_failures=100, wait=timedelta(0))

    def settle(self) -> None:
        """Let time pass with nobody sending, until all that is to come has come."""
        self.finish()
        self.crash()
        self.wait(LONGEST)
        assert not self.open, "a study waits for ever"
        self.analyse("all", arrives=True)
        self.check_settled()

    # What must hold

    def _studies(self) -> list[Any]:
        with self.ledger.transaction() as tx:
            return list(tx.connection.execute(select(study)).all())

    def check_closed(self, row: Any, account: Account) -> None:
        """No study closes but for a reason that holds."""
        now = self.clock.now
        quiet = max(at + timedelta(seconds=seconds) for at, seconds in account.arrivals)
        last = max(at for at, _ in account.arrivals)
        if row.closed_by == "QUIET":
            assert now >= quiet
        elif row.closed_by == "SERIES_ENDED":
            assert now >= last + timedelta(seconds=POLICY.end_grace_seconds)
            first = f"{row.study_uid}.0"
            counting = self.here[row.study_uid][first] - self.rejected
            assert len(counting) == SIZES[0], "a series has not ended"
            assert not self.here[row.study_uid].get(f"{row.study_uid}.1", set()) - self.rejected
        elif row.closed_by == "KNOWN_COUNT":
            here = {uid: len(uids) for uid, uids in self.here[row.study_uid].items() if uids}
            at, counts = account.answers[-1]
            assert counts == here
            agreeing = at
            for earlier, other in reversed(account.answers):
                if other != counts:
                    break
                agreeing = earlier
            assert at - agreeing >= timedelta(seconds=POLICY.count_apart_seconds)
        else:
            assert row.closed_by == "OPEN_TOO_LONG"
            assert now - account.opened_at >= timedelta(seconds=POLICY.max_open_seconds)

    def check_claimed(self, leased: Job) -> None:
        """What is analysed is what counts now, and nothing is analysed twice."""
        content = frozenset(path.rsplit("/", 1)[1].removesuffix(".dcm") for path in leased.paths)
        known = self.contents.setdefault(leased.id, (leased.series_uid, content))
        assert known == (leased.series_uid, content), "an attempt again has the same content"
        others = [
            number
            for number, made in self.contents.items()
            if made == (leased.series_uid, content) and number != leased.id
        ]
        assert not others, "the same content is analysed twice"
        assert not content & self.rejected, "what is rejected is analysed"

    def check_called_back(self, series_uid: str) -> None:
        """Results of what is not the whole series any more do not set out to any archive."""
        if not self.done[series_uid]:
            return
        with self.ledger.transaction() as tx:
            waiting = tx.connection.execute(
                select(delivery.c.id)
                .join(job, job.c.id == delivery.c.job_id)
                .join(series, series.c.id == job.c.series_id)
                .where(series.c.series_uid == series_uid, delivery.c.state == "PENDING")
            ).all()
        assert not waiting, "results that are out of date are sent"

    def check_settled(self) -> None:
        """In the end every series has results of all that counts, and older ones go nowhere."""
        for study_uid, members in self.here.items():
            for series_uid, uids in members.items():
                counting = frozenset(uids - self.rejected)
                if counting:
                    assert self.done[series_uid][-1] == counting, (study_uid, series_uid)
                assert len(set(self.done[series_uid])) == len(self.done[series_uid])
        with self.ledger.transaction() as tx:
            states = tx.connection.execute(
                select(job.c.series_id, job.c.generation, delivery.c.state, result.c.withdraw_at)
                .join(job, job.c.id == delivery.c.job_id)
                .join(result, result.c.id == delivery.c.result_id)
            ).all()
        newest: dict[int, int] = {}
        for one in states:
            newest[one.series_id] = max(newest.get(one.series_id, 0), one.generation)
        for one in states:
            assert one.state in ("DELIVERED", "CANCELLED")
            if one.generation == newest[one.series_id] and one.withdraw_at is None:
                assert one.state == "DELIVERED", "the newest results arrive"
