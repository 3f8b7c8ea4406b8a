"""Whatever the order, the delays, the duplicates and the restarts: what assembly promises holds.

One test drives the ledger with hundreds of histories, the other the pure decisions with thousands.
DICOMNODE_HISTORIES multiplies both: `make test-histories` drives the ledger with thousands as well.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from histories import World
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomnode.domain.assembly import (
    KNOWN_COUNT,
    OPEN_TOO_LONG,
    QUIET,
    SERIES_ENDED,
    Answer,
    AssemblyPolicy,
    Close,
    OpenStudy,
    SeriesHere,
    Wait,
    look_at,
    quiet_at,
    verdict,
)

TIMES = int(os.environ.get("DICOMNODE_HISTORIES", "1"))
CROWDS = st.sampled_from([1, 1, 2, 2, 4, 8])
"""How many studies are told at once, as of so many modalities: few meet themselves more often."""

WHICH = st.integers(0, 7)
ROW = st.integers(0, 1)
NUMBER = st.integers(0, 2)
ARRIVE = st.tuples(st.just("arrive"), WHICH, ROW, NUMBER, st.sampled_from([False] * 4 + [True]))
WAIT = st.tuples(
    st.just("wait"), st.sampled_from([0.5, 5.0, 19.0, 21.0, 31.0, 59.0, 61.0, 61.0, 160.0, 4000.0])
)
ANALYSE = st.tuples(
    st.just("analyse"),
    st.sampled_from(["claim", "finish", "crash", "all"]),
    st.sampled_from([False, False, True]),
)
OTHER = st.one_of(
    st.tuples(st.just("answer"), WHICH, st.booleans()),
    st.tuples(st.just("reject"), WHICH, ROW, NUMBER),
    st.sampled_from([("echo",), ("restart",)]),
)
STEPS = st.lists(
    st.one_of(ARRIVE, ARRIVE, ARRIVE, WAIT, WAIT, ANALYSE, OTHER), min_size=10, max_size=30
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = World(f"sqlite:///{folder}/ledger.sqlite")
        yield made
        made.ledger.close()


@settings(
    max_examples=40 * TIMES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(crowd=CROWDS, steps=STEPS)
def test_every_history_of_studies_in_the_ledger(
    world: World, crowd: int, steps: list[tuple[Any, ...]]
) -> None:
    world.begin()
    for name, *arguments in steps:
        if name in ("arrive", "answer", "reject"):
            arguments[0] %= crowd
        getattr(world, name)(*arguments)
    world.settle()


# The decisions alone

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICIES = [
    AssemblyPolicy(),
    AssemblyPolicy(series_quiet_seconds=300.0, end_grace_seconds=5.0),
    AssemblyPolicy(study_quiet_seconds=5.0, series_quiet_seconds=2.0, end_grace_seconds=60.0),
    AssemblyPolicy(max_open_seconds=100.0, count_wait_seconds=86400.0),
    AssemblyPolicy(count_apart_seconds=1.0, count_wait_seconds=10.0),
]


class History:
    """One study, told by chance: what comes, what an archive answers, and when somebody looks."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.policy = chance.choice(POLICIES)
        self.slow = replace(self.policy, study_quiet_seconds=400.0)
        self.now = START
        self.due: list[datetime] = []
        """When each arrival will have been quiet."""
        self.told: list[tuple[datetime, dict[str, int]]] = []
        self.ended = [chance.random() < 0.5 for _ in range(3)]
        self.here: Counter[str] = Counter()
        self.study: OpenStudy | None = None
        self.closed: Counter[str] = Counter()

    def run(self, steps: int) -> Counter[str]:
        for _ in range(steps):
            self.now += timedelta(seconds=self.chance.choice([0, 0.5, 4, 19, 31, 59, 61, 500]))
            self.chance.choice([self.arrive, self.arrive, self.answer, self.look])()
        self.let_it_close()
        return self.closed

    def arrive(self) -> None:
        row = self.chance.randrange(3)
        policy = self.chance.choice([self.policy, self.policy, self.slow])
        quiet = quiet_at(self.now, policy, is_image=row < 2)
        self.here[f"1.{row}"] += 1
        opened = self.now if self.study is None else self.study.opened_at
        before = None if self.study is None else self.study.quiet_at
        if self.study is None:
            self.due, self.told = [], []
        self.due.append(quiet)
        whole = quiet_at(self.now, policy, is_image=row < 2, before=before)
        assert look_at(self.now, opened, whole, self.policy) <= whole
        self.study = OpenStudy(
            opened_at=opened,
            last_at=self.now,
            quiet_at=whole,
            series=self.series(),
            answers=() if self.study is None else self.study.answers,
        )

    def series(self) -> tuple[SeriesHere, ...]:
        return tuple(
            SeriesHere(
                series_uid=uid,
                instances=count,
                is_image=not uid.endswith("2"),
                ended=not uid.endswith("2") and self.ended[int(uid[-1])],
            )
            for uid, count in self.here.items()
        )

    def answer(self) -> None:
        if self.study is None:
            return
        counts = dict(self.here)
        counts[self.chance.choice(sorted(counts))] += self.chance.choice([0, 0, 1, -1])
        if self.told and self.told[-1][1] == counts:
            run = replace(self.study.answers[0], last_at=self.now)
        else:
            run = Answer(peer="PACS", first_at=self.now, last_at=self.now, counts=counts)
        self.told.append((self.now, counts))
        self.study = replace(self.study, answers=(run,))

    def look(self) -> Close | Wait | None:
        if self.study is None:
            return None
        decided = verdict(self.study, self.policy, self.now)
        if isinstance(decided, Close):
            self.check(self.study, decided)
            self.closed[decided.why] += 1
            self.study = None
        else:
            assert decided.until > self.now, "nobody looks again and again for nothing"
        return decided

    def let_it_close(self) -> None:
        """Nothing waits for ever: looked at when the verdict says so, it closes in a few looks."""
        if self.study is None:
            return
        latest = self.study.opened_at + timedelta(seconds=self.policy.max_open_seconds)
        for _ in range(4):
            decided = self.look()
            if not isinstance(decided, Wait):
                return
            assert decided.until <= latest
            self.now = decided.until
        raise AssertionError("it waits for ever")

    def check(self, study: OpenStudy, decided: Close) -> None:
        policy, now = self.policy, self.now
        later = verdict(study, policy, now + timedelta(seconds=1))
        assert isinstance(later, Close), "what closes now closes a moment later as well"
        if decided.why == QUIET:
            assert now >= max(self.due)
        elif decided.why == SERIES_ENDED:
            assert now >= study.last_at + timedelta(seconds=policy.end_grace_seconds)
            images = [int(uid[-1]) for uid in self.here if not uid.endswith("2")]
            assert images
            assert all(self.ended[row] for row in images)
        elif decided.why == KNOWN_COUNT:
            at, counts = self.told[-1]
            assert counts == dict(self.here)
            agree = [when for when, other in self.told if other == counts]
            assert at - agree[0] >= timedelta(seconds=policy.count_apart_seconds)
        else:
            assert decided.why == OPEN_TOO_LONG
            assert now >= study.opened_at + timedelta(seconds=policy.max_open_seconds)
        if decided.short:
            assert decided.why in (QUIET, OPEN_TOO_LONG)
            assert self.told[-1][1] != dict(self.here)


@settings(max_examples=100 * TIMES, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_history_of_one_study(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(40):
        History(chance).run(steps=chance.randrange(1, 20))


def test_the_histories_come_to_every_end() -> None:
    """Otherwise the properties would say nothing of the ends they never see."""
    chance = random.Random(1)
    ends: Counter[str] = Counter()
    for _ in range(400):
        ends += History(chance).run(steps=15)
    assert set(ends) == {QUIET, SERIES_ENDED, KNOWN_COUNT, OPEN_TOO_LONG}
    assert min(ends.values()) > 10, ends
