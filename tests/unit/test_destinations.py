"""When a destination may be sent to, what may go there, and how it fares."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

import pytest

from dicomnode.domain.destinations import Destination, may_go, parse_window
from dicomnode.domain.health import WELL, after, patience
from dicomnode.domain.holdings import Identity, StudyRecord
from dicomnode.domain.identifiers import StudyUID
from dicomnode.domain.outcomes import Backoff, Done, Outcome, Refuse, Retry
from dicomnode.domain.subjects import Subject, differences
from dicomnode.domain.web import Web, check_web
from dicomnode.network.progress import Pace

DAY = date(2026, 3, 4)

# Windows


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("20:00-06:00", ["20:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "19:59"]),
        ("08:30-17:00", ["08:30", "16:59"], ["08:29", "17:00", "00:00"]),
        ("0:00 - 6:00", ["00:00", "05:59"], ["06:00", "23:59"]),
    ],
)
def test_a_window_has_its_beginning_and_not_its_end(
    window: str, inside: list[str], outside: list[str]
) -> None:
    destination = Destination(peer="P", window=window)
    for text in (*inside, *outside):
        now = datetime.combine(DAY, time.fromisoformat(text), tzinfo=UTC)
        assert destination.is_open(now) == (text in inside), text
    assert Destination(peer="P").is_open(datetime(2026, 3, 4, 12, tzinfo=UTC))


@pytest.mark.parametrize("text", ["20:00", "20-06", "24:00-06:00", "20:60-06:00", "8:00-8:00", ""])
def test_what_is_no_window(text: str) -> None:
    with pytest.raises(ValueError, match=r"time|window"):
        parse_window(text)


# Who gets what


@pytest.mark.parametrize(
    ("kind", "is_deidentified", "code"),
    [
        ("clinical", False, None),
        ("clinical", True, "DEIDENTIFIED_TO_CLINICAL"),
        ("research", True, None),
        ("research", False, "IDENTIFIED_TO_RESEARCH"),
        ("mixed", True, None),
        ("mixed", False, None),
    ],
)
def test_identified_goes_to_clinics_and_deidentified_to_research(
    kind: str, is_deidentified: bool, code: str | None
) -> None:
    refusal = may_go(kind, is_deidentified=is_deidentified)
    assert (refusal and refusal.code) == code


def subject(**changes: str) -> Subject:
    values = {"patient_id": "4711", "issuer": "H", "birth_date": "19500101"}
    values |= {"accession_number": "A1", **changes}
    return Subject(study_uid="1.2", is_deidentified=False, **values)


def record(**changes: str) -> StudyRecord:
    values = {"patient_id": "4711", "issuer": "H", "birth_date": "19500101"}
    accession = changes.pop("accession_number", "A1")
    return StudyRecord(
        study_uid=StudyUID("1.2"),
        study_date="",
        accession_number=accession,
        modalities=(),
        sop_class_uids=(),
        instances=None,
        identity=Identity(patient_name="", **(values | changes)),
    )


def test_one_and_the_same_has_no_differences() -> None:
    assert differences(subject(), record()) == ()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"patient_id": "4712"}, "Patient ID"),
        ({"issuer": "OTHER"}, "Issuer of Patient ID"),
        ({"birth_date": "19500102"}, "Patient's Birth Date"),
        ({"accession_number": "A2"}, "Accession Number"),
    ],
)
def test_each_difference_is_named_without_its_values(changes: dict[str, str], name: str) -> None:
    assert differences(subject(), record(**changes)) == (name,)


@pytest.mark.parametrize("key", ["issuer", "birth_date", "accession_number"])
def test_what_only_one_of_them_states_is_no_difference(key: str) -> None:
    assert differences(subject(), record(**{key: ""})) == ()
    assert differences(subject(**{key: ""}), record()) == ()


def test_a_patient_id_that_one_of_them_lacks_is_one() -> None:
    assert differences(subject(), record(patient_id="")) == ("Patient ID",)
    assert differences(subject(patient_id=""), record()) == ("Patient ID",)


def test_dates_of_acr_nema_are_the_same_dates() -> None:
    assert differences(subject(), record(birth_date="1950.01.01")) == ()


def test_identities_are_not_shown() -> None:
    assert "4711" not in repr(subject()) + repr(record())


# How it fares

NOW = datetime(2026, 3, 4, 5, tzinfo=UTC)
BACKOFF = Backoff(first_seconds=10, ceiling_seconds=100)
AWAY = Retry("NO_CONNECTION", "away")
FULL = Retry("STATUS_A700", "full")


def test_without_an_association_it_is_left_alone_for_longer_and_longer() -> None:
    health, waits = WELL, []
    for _ in range(6):
        health = after(health, AWAY, None, NOW, BACKOFF, 0.999999)
        assert health.retry_at is not None
        waits.append(round((health.retry_at - NOW) / timedelta(seconds=1)))
    assert waits == [10, 20, 40, 80, 100, 100]
    assert (health.failures, health.failing_since, health.reason) == (6, NOW, "NO_CONNECTION")


def test_one_object_that_fails_is_not_the_destination_s_fault() -> None:
    health = WELL
    for _ in range(5):
        health = after(health, FULL, 7, NOW, BACKOFF, 0)
        assert not health.is_away
    assert after(health, FULL, 8, NOW, BACKOFF, 0).is_away, "two of them are"


@pytest.mark.parametrize("outcome", [Done(), Refuse("STATUS_C000", "no")])
def test_any_answer_shows_that_it_lives(outcome: Outcome) -> None:
    health = after(after(WELL, FULL, 7, NOW, BACKOFF, 0), FULL, 8, NOW, BACKOFF, 0)
    assert after(health, outcome, 9, NOW, BACKOFF, 0) == WELL
    between = after(after(WELL, FULL, 7, NOW, BACKOFF, 0), outcome, 9, NOW, BACKOFF, 0)
    assert not after(between, FULL, 8, NOW, BACKOFF, 0).is_away


def test_once_away_it_stays_so_until_something_goes_well() -> None:
    health = after(WELL, AWAY, None, NOW, BACKOFF, 0)
    assert after(health, FULL, 7, NOW, BACKOFF, 0).is_away


def test_patience_grows_to_eight_times() -> None:
    assert [patience(60, attempt) for attempt in (0, 1, 2, 3, 4, 5, 50)] == [
        60,
        60,
        120,
        240,
        480,
        480,
        480,
    ]


def test_a_pace_lets_the_first_pass_and_makes_the_next_wait() -> None:
    pace = Pace(8.0)  # a million bytes a second
    assert pace.delay(500_000, 10.0) == 0
    assert pace.delay(500_000, 10.0) == pytest.approx(0.5)
    assert pace.delay(1, 12.0) == 0, "idle time is not saved up"
    assert pace.delay(1, 12.0) == pytest.approx(1e-6)
    assert [Pace(None).delay(10**9, 0.0) for _ in range(2)] == [0, 0]


# DICOMweb


@pytest.mark.parametrize(
    "web",
    [
        Web(url="https://archive.example/dicom-web"),
        Web(url="https://archive.example:8443/a/b", token="env:TOKEN"),
        Web(url="http://127.0.0.1:8042/dicom-web", user="file:/u", password="file:/p"),
        Web(url="http://[::1]:8042/", token="file:/t"),
    ],
)
def test_what_describes_a_service(web: Web) -> None:
    check_web(web)


@pytest.mark.parametrize(
    ("web", "fault"),
    [
        (Web(url="archive.example/dicom-web"), "stow_url: expected http"),
        (Web(url="ftp://archive.example"), "stow_url: expected http"),
        (Web(url="https://"), "stow_url: expected http"),
        (Web(url="https://archive.example:port"), "stow_url: no URL"),
        (Web(url="https://me:secret@archive.example"), "stow_url: has credentials"),
        (Web(url="https://archive.example/?token=secret"), "stow_url: has credentials"),
        (Web(url="https://a", token="secret"), "stow_token: expected env:NAME or file:PATH"),
        (Web(url="https://a", user="env:U"), "stow_user: user and password go together"),
        (
            Web(url="https://a", token="env:T", user="env:U", password="env:P"),
            "stow_token: either",
        ),
        (Web(url="http://archive.example", token="env:T"), "stow_url: credentials go to https"),
    ],
)
def test_what_does_not(web: Web, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)) as error:
        check_web(web)
    assert "secret" not in str(error.value).replace("the secret itself", "")


def test_a_destination_is_a_peer_or_a_service() -> None:
    with pytest.raises(ValueError, match=r"@\.peer: name a peer, or stow_url"):
        Destination()
    with pytest.raises(ValueError, match=r"@\.commitment: STOW-RS has none"):
        Destination(stow_url="https://a", commitment="wanted")
    with pytest.raises(ValueError, match=r"@\.stow_url: is missing"):
        Destination(peer="P", stow_token="env:T")
    assert Destination(peer="P").web is None
