"""Downloads over a real connection: resumed, tried again, whole or not there."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from file_server import FileServer, serve

from inference.card import WeightsError
from inference.weights import download
from inference.weights.download import SPARE_BYTES, fetch

DATA = np.random.default_rng(0).bytes(900_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.zip").write_bytes(DATA)
    with serve(folder) as state:
        yield state


class Waits(list[float]):
    """Stands for sleep: takes no time, and notes it."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def get(server: FileServer, target: Path, attempts: int = 3) -> Waits:
    waits = Waits()
    fetch(f"{server.address}/a.zip", target, lambda *_: None, sleep=waits, attempts=attempts)
    return waits


def test_a_file_is_fetched_with_progress(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.zip"
    told: list[tuple[str, int, int]] = []
    fetch(f"{server.address}/a.zip", target, lambda *what: told.append(what))
    assert target.read_bytes() == DATA
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]
    assert told[-1] == ("a.zip", len(DATA), len(DATA))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_a_cut_download_goes_on_where_it_was(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [500_000, 100_000]
    waits = get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert server.ranges == [None, "bytes=500000-", "bytes=600000-"]
    assert waits == [1.0, 1.0], "whoever makes progress does not wait longer each time"


def test_a_second_command_goes_on_too(server: FileServer, tmp_path: Path) -> None:
    server.cut_after, server.answers = [500_000], [0, 503, 503, 503]
    with pytest.raises(WeightsError, match=r"503 .*tried 3 times\. What came so far is kept"):
        get(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    assert (tmp_path / "a.zip.part").stat().st_size == 500_000
    server.ranges.clear()
    server.answers.clear()
    get(server, tmp_path / "a.zip")
    assert server.ranges == ["bytes=500000-"]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_file_that_changed_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.cut_after, server.answers = [500_000], [0, 500, 500, 500]
    with pytest.raises(WeightsError):
        get(server, tmp_path / "a.zip")
    other = DATA[::-1]
    (server.folder / "a.zip").write_bytes(other)
    server.etag = '"two"'
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == other


def test_a_part_of_unknown_origin_is_not_built_on(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == DATA
    assert server.ranges == [None]


def test_a_busy_server_is_asked_again_later_and_later(server: FileServer, tmp_path: Path) -> None:
    server.answers = [503, 429]
    assert get(server, tmp_path / "a.zip") == [1.0, 2.0]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_what_is_not_there_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"404 .*it is not there any more"):
        fetch(f"{server.address}/b.zip", tmp_path / "b.zip", lambda *_: None, sleep=Waits())
    assert len(server.ranges) == 1


def test_half_a_download_is_none(server: FileServer, tmp_path: Path) -> None:
    server.say_length = len(DATA) + 10
    with pytest.raises(WeightsError, match="tried 2 times"):
        get(server, tmp_path / "a.zip", attempts=2)
    assert not (tmp_path / "a.zip").exists()


def test_a_redirect_leads_to_the_web_only(server: FileServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for place in (f"file://{secret}", "ftp://127.0.0.1/x"):
        server.redirect = place
        with pytest.raises(WeightsError, match="302"):
            get(server, tmp_path / "a.zip")


def test_no_network_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waits = Waits()
    with pytest.raises(WeightsError, match=r"no network, or 127\.0\.0\.1 does not answer"):
        fetch(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a", lambda *_: None, sleep=waits)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    with pytest.raises(WeightsError, match="expected an address with http"):
        fetch("file:///etc/passwd", tmp_path / "a", lambda *_: None)


def test_no_space_is_told_before_anything_is_written(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SPARE_BYTES + len(DATA) - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(
        WeightsError, match=r"no space for a\.zip: it needs 211 MB, 211 MB are free"
    ):
        get(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip.part").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free + 1))
    get(server, tmp_path / "a.zip")


def test_a_file_too_large_is_refused(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(WeightsError, match="expected at most"):
        get(server, tmp_path / "a.zip")
