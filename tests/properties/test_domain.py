"""What holds for every input of the decisions."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from hypothesis import assume, example, given
from hypothesis import strategies as st

from dicomnode.domain import admission
from dicomnode.domain.admission import Fate
from dicomnode.domain.assembly import AssemblyPolicy, look_at, quiet_at
from dicomnode.domain.identifiers import (
    InstanceUID,
    InvalidUIDError,
    PatientKey,
    SeriesUID,
    SOPClassUID,
    StudyUID,
    TransferSyntaxUID,
    derive_uid,
    is_strict_uid,
    parse_uid,
)
from dicomnode.domain.outcomes import Backoff
from dicomnode.domain.records import Header, SeriesFacts, StoredInstance
from dicomnode.domain.routing import Condition, Rule, choose, mismatch
from dicomnode.domain.series import CT_SOP_CLASSES
from dicomnode.spool import Spool

UID_LIKE = st.text(st.sampled_from("0123456789./\\ \0\n-a٣"), max_size=70)
PARTS = st.lists(st.text(), max_size=5)

# UIDs


@given(PARTS)
def test_a_derived_uid_is_strict_and_the_same_again(parts: list[str]) -> None:
    uid = derive_uid(*parts)
    assert is_strict_uid(uid)
    assert uid == derive_uid(*parts) == parse_uid(uid)


@given(PARTS, PARTS)
@example(["ab", "c"], ["a", "bc"])
@example([], [""])
def test_other_parts_give_another_uid(one: list[str], other: list[str]) -> None:
    assume(one != other)
    assert derive_uid(*one) != derive_uid(*other)


@given(UID_LIKE | st.text())
@example("../../etc/passwd")
@example("1.2/../3")
@example("1.2.3\n")
def test_hostile_text_never_becomes_a_path(text: str) -> None:
    try:
        uid = parse_uid(text)
    except InvalidUIDError:
        return
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid, re.ASCII)
    assert len(uid) <= 64
    path = PurePosixPath(
        Spool(PurePosixPath("/spool")).instance_path(  # type: ignore[arg-type]
            StudyUID(uid), SeriesUID(uid), InstanceUID(uid)
        )
    )
    assert path.parts == ("instances", uid, uid, f"{uid}.dcm")


@given(UID_LIKE)
def test_a_strict_uid_parses_to_itself(text: str) -> None:
    if is_strict_uid(text):
        assert parse_uid(text) == text


# Time

ATTEMPTS = st.integers(min_value=-5, max_value=10_000)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)
SECONDS = st.floats(min_value=0.001, max_value=86_400)


@given(SECONDS, SECONDS, ATTEMPTS, JITTER)
def test_a_wait_is_never_nothing_and_never_above_the_ceiling(
    first: float, ceiling: float, attempt: int, jitter: float
) -> None:
    wait = Backoff(first_seconds=first, ceiling_seconds=ceiling).after(attempt, jitter)
    rounding = timedelta(microseconds=1)
    assert min(first, ceiling) / 2 - 1e-6 <= wait.total_seconds()
    assert wait <= timedelta(seconds=ceiling) + rounding


@given(SECONDS, SECONDS, ATTEMPTS, JITTER)
def test_a_later_attempt_waits_no_shorter(
    first: float, ceiling: float, attempt: int, jitter: float
) -> None:
    backoff = Backoff(first_seconds=first, ceiling_seconds=ceiling)
    assert backoff.after(attempt, jitter) <= backoff.after(attempt + 1, jitter)


START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 10**12).map(lambda count: START + timedelta(microseconds=count))
POLICIES = st.builds(
    AssemblyPolicy,
    study_quiet_seconds=st.floats(0.001, 86_400),
    series_quiet_seconds=st.floats(0.001, 86_400),
)


@given(TIMES, st.none() | TIMES, POLICIES, st.booleans())
def test_a_study_is_never_quiet_while_something_is_fresh(
    now: datetime, before: datetime | None, policy: AssemblyPolicy, image: bool
) -> None:
    quiet = quiet_at(now, policy, is_image=image, before=before)
    assert quiet >= now + timedelta(seconds=policy.study_quiet_seconds)
    assert not image or quiet >= now + timedelta(seconds=policy.series_quiet_seconds)
    assert before is None or quiet >= before


@given(TIMES, TIMES, POLICIES, st.booleans(), st.integers(0, 100_000))
def test_a_later_arrival_never_makes_a_study_quiet_sooner(
    now: datetime, before: datetime, policy: AssemblyPolicy, image: bool, later: int
) -> None:
    quiet = quiet_at(now, policy, is_image=image, before=before)
    moved = now + timedelta(seconds=later)
    assert quiet_at(moved, policy, is_image=image, before=quiet) >= quiet
    assert look_at(moved, before, quiet, policy) <= quiet


# Rules

WORDS = st.sampled_from(["CT", "MR", "Thorax", "thorax 1.0", "", "*", "T*", "?T"])
PATTERNS = st.lists(WORDS, max_size=2).map(tuple)
BOUNDS = st.none() | st.integers(0, 5)
CONDITIONS = st.builds(
    Condition,
    modality=PATTERNS,
    description=PATTERNS,
    not_description=PATTERNS,
    sending_ae=PATTERNS,
    min_slice_thickness_mm=BOUNDS,
    max_slice_thickness_mm=BOUNDS,
    min_instances=BOUNDS,
    max_instances=BOUNDS,
)
RULES = st.lists(
    st.builds(
        Rule,
        name=st.text(max_size=3),
        when=CONDITIONS,
        model=st.none() | st.just("demo"),
        destinations=st.lists(st.just("archive"), max_size=1).map(tuple),
    ),
    max_size=4,
)
SERIES = st.builds(
    SeriesFacts,
    modality=WORDS,
    sop_class_uids=st.lists(st.sampled_from([*sorted(CT_SOP_CLASSES), "1.2"]), max_size=2).map(
        tuple
    ),
    body_part=WORDS,
    description=WORDS,
    slice_thickness_mm=st.none() | st.integers(0, 5),
    instances=st.integers(0, 5),
    calling_aes=PATTERNS,
)


@given(RULES, SERIES)
def test_the_first_rule_that_matches_decides(rules: list[Rule], series: SeriesFacts) -> None:
    choice = choose(rules, series)
    assert choice.why
    if not series.sop_class_uids or not CT_SOP_CLASSES.issuperset(series.sop_class_uids):
        assert choice.model is None
        return
    first = next((rule for rule in rules if mismatch(rule.when, series) is None), None)
    assert choice.rule == (None if first is None else first.name)
    assert choice.model == (None if first is None else first.model)
    assert not choice.destinations or choice.model


@given(RULES, RULES, SERIES)
def test_rules_behind_the_one_that_matched_change_nothing(
    rules: list[Rule], more: list[Rule], series: SeriesFacts
) -> None:
    choice = choose(rules, series)
    if choice.rule is not None:
        assert choose([*rules, *more], series) == choice


@given(st.sampled_from(["CT", "MR", "Thorax"]), CONDITIONS, SERIES)
def test_a_further_pattern_only_widens(
    word: str, condition: Condition, series: SeriesFacts
) -> None:
    if condition.modality and mismatch(condition, series) is None:
        wider = replace(condition, modality=(*condition.modality, word))
        assert mismatch(wider, series) is None


# Admission

DIGESTS = st.sampled_from(["a", "b"])
HEADERS = st.builds(
    Header,
    study_uid=st.sampled_from([StudyUID("1.1"), StudyUID("1.2")]),
    series_uid=st.just(SeriesUID("1.3")),
    sop_instance_uid=st.just(InstanceUID("1.4")),
    sop_class_uid=st.just(SOPClassUID("1.5")),
    transfer_syntax_uid=DIGESTS.map(TransferSyntaxUID),
    patient_key=DIGESTS.map(PatientKey),
    identity_digest=DIGESTS,
    pixel_digest=DIGESTS,
    geometry_digest=DIGESTS,
    modality=st.just("CT"),
    series_number=st.none(),
    series_description=st.just(""),
    body_part=st.just(""),
    slice_thickness_mm=st.none(),
    made_by_this_software=st.booleans(),
)
KNOWN = st.builds(
    StoredInstance,
    study_uid=st.just(StudyUID("1.1")),
    digest=DIGESTS,
    pixel_digest=DIGESTS,
    geometry_digest=DIGESTS,
    identity_digest=DIGESTS,
    transfer_syntax_uid=DIGESTS.map(TransferSyntaxUID),
)


@given(
    HEADERS,
    st.sampled_from(["1.4", "1.9"]),
    DIGESTS,
    st.none() | KNOWN,
    st.none() | DIGESTS.map(PatientKey),
    st.booleans(),
    st.none() | st.booleans(),
)
def test_no_answer_loses_bytes_or_lets_two_contents_pass_as_one(
    header: Header,
    requested: str,
    digest: str,
    known: StoredInstance | None,
    study_patient: PatientKey | None,
    own: bool,
    same: bool | None,
) -> None:
    decision = admission.decide(
        header,
        request_sop_class_uid="1.5",
        request_sop_instance_uid=requested,
        digest=digest,
        known=known,
        study_patient=study_patient,
        is_own_result=own,
        same_image=same,
    )
    if known is not None:
        assert decision.fate not in (Fate.STORE, Fate.STORE_ASIDE), "the first copy stays"
    if decision.fate is Fate.DROP and not own:
        assert known is not None
        assert digest == known.digest or same or header.pixel_digest == known.pixel_digest
        assert digest == known.digest or (header.identity_digest, header.geometry_digest) == (
            known.identity_digest,
            known.geometry_digest,
        )
    if decision.status != admission.SUCCESS:
        assert decision.fate is Fate.QUARANTINE
    if decision.fate is Fate.QUARANTINE:
        assert decision.level == admission.ATTENTION
    if decision.hold_study:
        assert decision.level == admission.ATTENTION
