"""A study that nobody routed is fetched from the archive and analysed, and its results go there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nodes import Node, are_delivered, job_states
from peers import Orthanc
from scu import store
from small_series import phantom_series


@pytest.mark.peer("orthanc")
def test_a_prior_is_fetched_analysed_and_its_results_come_back(
    node: Callable[..., Node], orthanc: Orthanc
) -> None:
    wires = phantom_series(9)
    store(orthanc.port, *wires, called="ARCHIVE")
    (study_uid,) = {dataset.StudyInstanceUID for dataset in orthanc.datasets()}
    running = node(
        "run",
        archive=orthanc,
        quiet_seconds=600.0,
        overrides={
            "peers": {"ARCHIVE": {"query": True}},
            "assembly": {"max_study_age_days": 3.0},
        },
    )
    orthanc.add_modality("NODE", running.ae_title, running.port)

    done = running.command("fetch", "--study", study_uid)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{study_uid}: 40 instances from ARCHIVE by C-MOVE\n"
    status = running.wait_for(are_delivered(3), timeout=120)
    assert job_states(status) == ["DONE"]
    assert status["counts"]["instances"] == 40
    assert set(orthanc.results(study_uid)) == {"SEG", "OT", "SR"}
    assert running.attention() == []

    # Again: the archive now counts the node's own results, too, and nothing begins anew.
    running.write_config({"peers": {"ARCHIVE": {"retrieve": "get"}}})
    again = running.command("fetch", "--study", study_uid)
    assert again.stdout == f"{study_uid}: 43 instances from ARCHIVE by C-GET\n"
    closed = running.wait_for(lambda now: now["counts"]["studies"] == {"CLOSED": 1}, timeout=10)
    assert closed["counts"] == status["counts"]
    assert running.attention() == []
