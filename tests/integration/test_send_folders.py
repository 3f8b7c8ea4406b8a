"""Results in a folder: whole files, the states of every delivery, and a folder that is away."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from analysis_kit import ConstantPredictor, model_card, plan
from ledger_kit import QUIET_SECONDS, claimed, close, header, receive
from sending_kit import Sending

from dicomnode.demo.series import write_series
from dicomnode.domain.alternatives import needed
from dicomnode.domain.plans import FILES
from dicomnode.domain.routing import Choice
from dicomnode.echoes import echo_destination
from dicomnode.ledger import actions
from dicomnode.ledger.tables import delivery
from dicomnode.pipeline import analyze
from dicomnode.services.work import Worker

PLACE = Path("1.2.1/1.2.1.3/demo")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "research"
    made.mkdir()
    return made


@pytest.fixture
def sending(sending: Callable[..., Sending], folder: Path) -> Callable[..., Sending]:
    """Make a sender to the folder."""

    def make(**keys: Any) -> Sending:
        terms = {"peer": None, "folder": str(folder), "profile": "research", **keys}
        return sending(104, destination=terms)

    return make


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_results_lie_whole_under_study_series_and_model(
    sending: Callable[..., Sending], folder: Path
) -> None:
    one = sending()
    one.give(*FILES, "seg", profile=(*FILES, "seg"))
    one.send()
    found = files_in(folder)
    names = ["labels.nii.gz", "seg.dcm", "statistics.json", "structures.csv"]
    assert list(found) == [str(PLACE / name) for name in names]
    assert found[str(PLACE / "statistics.json")] == b"statistics of 1.2.1"
    assert set(one.states().values()) == {"DELIVERED"}
    for path in (folder / PLACE).iterdir():
        assert path.stat().st_mode & 0o777 == 0o640
    assert (folder / "1.2.1").stat().st_mode & 0o777 == 0o750
    assert one.events().count("DELIVERED") == 4
    one.send()
    assert one.events().count("DELIVERED") == 4, "nothing is due twice"


def test_a_folder_that_is_away_is_waited_for_and_never_made(
    sending: Callable[..., Sending], folder: Path
) -> None:
    one = sending()
    one.give(*FILES, profile=FILES)
    folder.rmdir()
    one.send()
    assert not folder.exists()
    assert set(one.states().values()) == {"PENDING"}
    assert one.health().failures == 1
    assert one.health().reason == "FOLDER_UNAVAILABLE"
    attempts = [row.attempt for row in one.deliveries()]
    one.send()
    assert [row.attempt for row in one.deliveries()] == attempts, "it is left alone for a while"

    folder.mkdir()
    one.clock.forward(one.seconds_until(one.health().retry_at) + 1)
    one.send()
    assert set(one.states().values()) == {"DELIVERED"}
    assert len(files_in(folder)) == 3


def test_a_folder_that_cannot_even_be_looked_for_is_away(
    sending: Callable[..., Sending], folder: Path
) -> None:
    """As where a file server is: the system says more than that there is none."""
    one = sending(folder=str(folder / ("a" * 300)))
    one.give("table", profile=("table",))
    one.send()
    assert set(one.states().values()) == {"PENDING"}
    assert one.health().reason == "FOLDER_UNAVAILABLE"


def test_what_is_not_the_recorded_result_is_refused_and_leaves_nothing(
    sending: Callable[..., Sending], folder: Path
) -> None:
    one = sending()
    job = one.give(*FILES, profile=FILES)
    one.spool.path(f"results/{job}/statistics.json").write_bytes(b"changed")
    one.spool.path(f"results/{job}/structures.csv").unlink()
    one.send()
    reasons = {row.reason for row in one.deliveries() if row.state == "REFUSED"}
    assert reasons == {"BYTES_CHANGED", "BYTES_MISSING"}
    assert list(files_in(folder)) == [str(PLACE / "labels.nii.gz")]
    assert one.events("attention").count("DELIVERY_REFUSED") == 2


def test_a_later_result_replaces_the_file(sending: Callable[..., Sending], folder: Path) -> None:
    one = sending()
    (folder / PLACE).mkdir(parents=True)
    (folder / PLACE / "structures.csv").write_text("of an older generation")
    one.give("table", profile=("table",))
    one.send()
    assert files_in(folder) == {str(PLACE / "structures.csv"): b"table of 1.2.1"}


@pytest.mark.parametrize(
    ("kind", "removed", "arrives"),
    [("clinical", "YES", False), ("research", None, False), ("mixed", "YES", True)],
)
def test_dicom_goes_only_where_its_kind_may_go(
    sending: Callable[..., Sending], folder: Path, kind: str, removed: str | None, arrives: bool
) -> None:
    one = sending(objects=["seg"], kind=kind)
    one.give("seg", profile=("seg",), patient={"PatientIdentityRemoved": removed})
    one.send()
    assert bool(files_in(folder)) is arrives
    assert set(one.states().values()) == {"DELIVERED" if arrives else "REFUSED"}


def test_held_results_wait_for_a_person(sending: Callable[..., Sending], folder: Path) -> None:
    one = sending()
    one.give(*FILES, profile=FILES)
    numbers = [row.id for row in one.deliveries()]
    with one.ledger.transaction() as tx:
        for number in numbers:
            tx.move(delivery, number, "hold", reason="CONTENT_HELD", updated_at=tx.now)
    one.send()
    assert files_in(folder) == {}
    with one.ledger.transaction() as tx:
        assert actions.release_study(tx, "1.2.1", "somebody", "looked at it")
    one.send()
    assert len(files_in(folder)) == 3


def test_what_an_analysis_gives_arrives(sending: Callable[..., Sending], folder: Path) -> None:
    hu = np.full((20, 24, 16), -1000, np.int16)
    hu[4:16, 4:18] = 50
    files = write_series(hu, np.diag([-2.0, -2.0, 3.0, 1.0]))
    first = pydicom.dcmread(BytesIO(files[0]))
    study, series = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
    one = sending()
    receive(one.ledger, header(str(first.SOPInstanceUID), study=study, series=series))
    one.clock.forward(QUIET_SECONDS)
    choice = Choice(model="demo", rule="all", destinations=("archive",), why="", stat=False)
    assert close(one.ledger, choose=lambda _series: choice) == 1
    job = claimed(one.ledger)
    worker = Worker(one.context, None, "cpu")  # type: ignore[arg-type]
    (profile,) = worker._profiles(job)
    analysis = analyze(
        files,
        plan(job_id=str(job.id), objects=needed(profile)),
        predictor=ConstantPredictor({5: (slice(2, 9), slice(3, 9), slice(4, 9))}),
        card=model_card((2.0, 2.0, 3.0), demonstration=True),
    )
    assert worker._record(job, analysis) == "DONE"
    one.send()
    assert set(one.states().values()) == {"DELIVERED"}
    found = files_in(folder / study / series / "demo")
    assert found == {item.file_name: item.data for item in analysis.results}
    assert len(found) == 3


def test_echo_says_whether_the_folder_is_there(
    sending: Callable[..., Sending], folder: Path
) -> None:
    one = sending()
    assert echo_destination(one.settings, "archive").code == "DONE"
    folder.rmdir()
    assert echo_destination(one.settings, "archive").code == "FOLDER_UNAVAILABLE"
