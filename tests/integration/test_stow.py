"""Delivery by STOW-RS: to Orthanc's DICOMweb plugin, and to services with a script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from peers import DICOM_WEB_PLUGIN, HOST, Orthanc
from sending_kit import Sending
from stow_kit import Service, failed, stored

from dicomnode.domain.outcomes import Done, Retry
from dicomnode.domain.security import ServerTls
from dicomnode.echoes import echo_destination
from dicomnode.network import tls

MakeSending = Callable[..., Sending]


@pytest.fixture
def sending(sending: Callable[..., Sending]) -> MakeSending:
    """Make a sender to a DICOMweb service."""

    def make(url: str, **destination: Any) -> Sending:
        destination = {"peer": None, "stow_url": url, **destination}
        return sending(1, destination=destination, send={"timeout_seconds": 1.0})

    return make


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """Make services that run."""
    made: list[Service] = []

    def make(answer: Callable[[str], tuple[int, Any]] | None = None, wrap: Any = None) -> Service:
        made.append(Service(answer or (lambda uid: (200, stored(uid))), wrap))
        return made[-1]

    yield make
    for one in made:
        one.close()


# A real archive


@pytest.mark.peer("orthanc", "orthanc-dicomweb")
def test_results_arrive_as_they_are_and_again_after_the_archive_was_away(
    start_orthanc: Callable[..., Orthanc], sending: MakeSending, clock: Any
) -> None:
    orthanc = start_orthanc(
        options={
            "Plugins": [str(DICOM_WEB_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
    )
    kit = sending(f"http://{HOST}:{orthanc.http_port}/dicom-web")
    assert echo_destination(kit.settings, "archive") == Done()
    first = kit.give(size=300_000)
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    assert set(orthanc.instances("1.2.1")) == {f"2.25.{first}.{position}" for position in range(3)}
    sent = kit.spool.path(kit.spool.result_path(first, f"2.25.{first}.0.dcm")).read_bytes()
    assert orthanc.file(orthanc.instances()[f"2.25.{first}.0"]) == sent, "byte for byte"

    orthanc.kill()
    second = kit.give()
    kit.send()
    assert isinstance(echo_destination(kit.settings, "archive"), Retry)
    assert kit.health().reason == "NO_CONNECTION"
    assert kit.health().retry_at is not None, "the service is away, and no object is to blame"
    orthanc.start()
    clock.forward(60)
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}
    assert f"2.25.{second}.2" in orthanc.instances()


# Answers


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        (lambda uid: (200, stored(uid)), "DELIVERED", None),
        (lambda uid: (202, stored(uid, 0xB000)), "DELIVERED", "COERCED"),
        (lambda uid: (202, stored(uid, 0xB007)), "DELIVERED", "STORED_WITH_WARNING"),
        (lambda uid: (202, failed(uid, 0xA700)), "PENDING", "STATUS_A700"),
        (lambda uid: (409, failed(uid, 0xA900)), "REFUSED", "STATUS_A900"),
        (lambda uid: (409, failed(uid, 0x0122)), "REFUSED", "SOP_CLASS_NOT_SUPPORTED"),
        (lambda uid: (200, failed(uid, 0x0000)), "PENDING", "STATUS_0110"),
        (lambda _uid: (200, stored("1.2.3")), "PENDING", "NO_RESPONSE"),
        (lambda _uid: (200, None), "PENDING", "NO_RESPONSE"),
        (lambda _uid: (200, ["no data set"]), "PENDING", "NO_RESPONSE"),
        (lambda _uid: (400, None), "REFUSED", "HTTP_400"),
        (lambda _uid: (401, None), "PENDING", "HTTP_401"),
        (lambda _uid: (404, None), "PENDING", "HTTP_404"),
        (lambda _uid: (413, None), "REFUSED", "HTTP_413"),
        (lambda _uid: (307, None), "REFUSED", "HTTP_307"),
        (lambda _uid: (500, None), "PENDING", "HTTP_500"),
        (lambda _uid: (503, None), "PENDING", "HTTP_503"),
    ],
)
def test_every_answer_comes_to_its_outcome(
    service: Callable[..., Service],
    sending: MakeSending,
    answer: Callable[[str], tuple[int, Any]],
    state: str,
    reason: str | None,
) -> None:
    there = service(answer)
    kit = sending(there.url)
    kit.give("preview", profile=("preview",))
    kit.send()
    (row,) = kit.deliveries()
    assert (row.state, row.reason) == (state, reason)
    assert there.paths == ["/dicom-web/studies/1.2.1"]


def test_a_service_that_lets_nobody_in_is_left_alone(
    service: Callable[..., Service], sending: MakeSending, clock: Any
) -> None:
    there = service(lambda _uid: (401, None))
    kit = sending(there.url)
    for _ in range(3):
        kit.give("preview", profile=("preview",))
    kit.send()
    assert len(there.paths) == 1
    there.answer = lambda uid: (200, stored(uid))
    clock.forward(60)
    kit.send()
    assert set(kit.states().values()) == {"DELIVERED"}


def test_the_next_form_goes_where_a_class_is_refused(
    service: Callable[..., Service], sending: MakeSending
) -> None:
    first = "2.25.1.0"
    there = service(lambda uid: (409, failed(uid, 0x0122)) if uid == first else (200, stored(uid)))
    kit = sending(there.url)
    kit.give("labelmap", "seg", profile=("labelmap",))
    kit.send()
    assert kit.states() == {first: "SUBSTITUTED", "2.25.1.1": "DELIVERED"}


def test_a_service_that_says_nothing_is_given_up_in_time(
    service: Callable[..., Service], sending: MakeSending
) -> None:
    release = threading.Event()

    def hang(uid: str) -> tuple[int, Any]:
        release.wait(20)
        return 200, stored(uid)

    kit = sending(service(hang).url)
    kit.give("preview", profile=("preview",))
    kit.send()
    release.set()
    assert [(row.state, row.reason) for row in kit.deliveries()] == [("PENDING", "NO_RESPONSE")]


def test_an_answer_that_breaks_off_is_taken_for_the_services_fault(
    service: Callable[..., Service], sending: MakeSending
) -> None:
    there = service()
    there.missing_bytes = 10
    kit = sending(there.url)
    for _ in range(3):
        kit.give("preview", profile=("preview",))
    kit.send()
    assert [row.reason for row in kit.deliveries()] == ["NO_RESPONSE", "NO_RESPONSE", None]
    assert len(there.bodies) == 2, "after the second it is left alone"


# Credentials and TLS


def test_a_token_from_a_file_is_read_anew_for_every_batch(
    service: Callable[..., Service], sending: MakeSending, tmp_path: Path, caplog: Any
) -> None:
    there = service()
    secret = tmp_path / "token"
    kit = sending(there.url, stow_token=f"file:{secret}")
    kit.give("preview", profile=("preview",))
    kit.send()
    assert (there.paths, kit.health().reason) == ([], "NO_SECRET")
    secret.write_text("abc.def\n")
    kit.clock.forward(60)
    kit.send()
    assert there.authorizations == ["Bearer abc.def"]
    secret.write_text("new.one\n")
    kit.give("preview", profile=("preview",))
    kit.send()
    assert there.authorizations[1:] == ["Bearer new.one"]
    assert "abc.def" not in caplog.text


def test_user_and_password_from_the_environment(
    service: Callable[..., Service], sending: MakeSending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOW_USER", "node")
    monkeypatch.setenv("STOW_PASSWORD", "secret")
    there = service()
    kit = sending(there.url, stow_user="env:STOW_USER", stow_password="env:STOW_PASSWORD")
    kit.give("preview", profile=("preview",))
    kit.send()
    assert there.authorizations == ["Basic bm9kZTpzZWNyZXQ="]


def test_tls_is_verified(
    service: Callable[..., Service], sending: MakeSending, tmp_path: Path
) -> None:
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca")
    signed = authority.sign("localhost")
    context = tls.server_context(
        ServerTls(
            port=1, certificate=signed.certificate, key=signed.key, client_certificates="none"
        )
    )
    there = service(None, lambda socket: context.wrap_socket(socket, server_side=True))
    known = sending(there.url, stow_ca=str(authority.certificate))
    known.give("preview", profile=("preview",))
    known.send()
    assert set(known.states().values()) == {"DELIVERED"}
    unknown = sending(there.url)
    unknown.give("preview", profile=("preview",))
    unknown.send()
    assert [(row.state, row.reason) for row in unknown.deliveries()] == [("PENDING", "TLS_FAILED")]
    assert len(there.paths) == 1, "nothing of it was said to a stranger"
