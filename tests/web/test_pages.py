"""What the pages and the API say, and what an operator does there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import (
    analysed,
    claimed,
    close,
    deliver_all,
    fail,
    header,
    receive,
    rows,
    settle,
    states,
    taken,
)
from pydicom.uid import ExplicitVRLittleEndian
from small_ct import CT, encoded, instance
from web_kit import Web, act, token_on

from dicomnode.domain.outcomes import Refuse
from dicomnode.domain.sayings import saying
from dicomnode.instances import file_prefix
from dicomnode.ledger import Ledger, presence
from dicomnode.ledger.tables import delivery, event, job, result, study


def refused_job(ledger: Ledger, clock: Any, code: str = "NOT_HU") -> None:
    receive(ledger, header(series_description="a & b <i>"))
    clock.forward(60)
    close(ledger)
    fail(ledger, claimed(ledger), Refuse(code, "no Rescale Slope"))


def test_an_empty_node_says_what_does_not_run(web: Web) -> None:
    text = web.browser("vera").get("/").text
    for role in ("receive", "work", "send"):
        assert f"The role {role} does not run." in text
    assert "not for diagnosis" in text


def test_the_overview_answers_what_a_pacs_admin_asks(web: Web, ledger: Ledger, clock: Any) -> None:
    refused_job(ledger, clock)
    for role in ("receive", "tick", "work", "send"):
        with ledger.transaction() as tx:
            presence.start(tx, role, 1)
    facts = web.program("vera").get("/api/overview").json()
    assert [(one["question"], one["level"]) for one in facts["answers"]] == [
        ("Receiving", "good"), ("Analysing", "good"), ("Sending", "good"),
    ]  # fmt: skip
    (row,) = facts["attention"]
    assert row["says"] == saying("JOB_REFUSED").what
    assert row["because"] == saying("NOT_HU").what
    text = web.browser("vera").get("/").text
    assert saying("NOT_HU").what.split(":")[0] in text
    assert "Last image 1 min ago." in text
    assert "/act/" not in text, "a viewer sees no button that is refused"
    assert "/act/requeue-job?job=1" in web.browser("olga").get("/").text


def test_a_study_shows_series_job_deliveries_and_course(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    done = analysed(ledger, clock, header(series_description="a & b <i>"))
    deliver_all(ledger)
    folder = web.spool.results / str(done.id)
    folder.mkdir()
    (folder / "preview.png").write_bytes(b"\x89PNG")
    (folder / "seg.dcm").write_bytes(b"dicom")
    client = web.browser("vera")
    text = client.get("/studies/1.2").text
    for part in ("a &amp; b &lt;i&gt;", "rule &#39;all&#39;", "STUDY_CLOSED", "DELIVERED",
                 f"/previews/{done.id}", "/results/1", "delivered"):  # fmt: skip
        assert part in text, part
    assert client.get(f"/previews/{done.id}").headers["content-type"] == "image/png"
    taken_ = client.get("/results/1")
    assert taken_.content == b"dicom"
    assert "attachment" in taken_.headers["content-disposition"]
    assert client.get("/results/2").status_code == 404, "its file is gone"
    assert client.get("/previews/99").status_code == 404
    facts = client.get("/api/studies/1.2").json()
    assert facts["jobs"][0]["state"] == "DONE"
    assert "path" not in json.dumps(facts["jobs"][0]["results"])


def test_a_path_of_the_ledger_that_leads_out_of_the_spool_is_not_followed(
    web: Web, ledger: Ledger, clock: Any, tmp_path: Path
) -> None:
    analysed(ledger, clock)
    (tmp_path / "secret").write_text("secret")
    with ledger.transaction() as tx:
        tx.connection.execute(result.update().values(path="results/../../../secret"))
    assert web.browser("vera").get("/results/1").status_code == 404


def test_the_list_pages_through_the_studies(web: Web, ledger: Ledger, clock: Any) -> None:
    for number in range(1, 8):
        receive(ledger, header(f"1.{number}.1", study=f"1.{number}", series=f"1.{number}.0"))
        clock.forward(1)
    client = web.browser("vera")
    page = client.get("/api/studies", params={"limit": 3}).json()
    second = client.get("/api/studies", params={"limit": 3, "after": page["next"]}).json()
    assert [row["study_uid"] for row in second["studies"]] == ["1.4", "1.3", "1.2"]
    assert 'rel="next"' not in client.get("/studies").text
    for wrong in ("state=X", "limit=0", "limit=999", "after=x", "uid=a", "attention=yes"):
        assert client.get(f"/studies?{wrong}").status_code == 400, wrong
        assert client.get(f"/api/studies?{wrong}").status_code == 400, wrong


def test_names_of_patients_are_shown_only_where_it_is_wanted(
    tmp_path: Path, ledger: Ledger
) -> None:
    receive(ledger, header())
    web = Web(tmp_path, ledger)
    web.add_users()
    path = web.spool.instances / "1.2/1.2.3/1.2.3.1.dcm"
    path.parent.mkdir(parents=True)
    image = encoded(instance(PatientName="Doe^Jane"))
    path.write_bytes(file_prefix(CT, "1.2.3.4", ExplicitVRLittleEndian) + image)
    assert "Doe" not in web.browser("vera").get("/studies/1.2").text
    web = Web(tmp_path, ledger, {"web": {"show_patient": True}})
    assert "Doe^Jane" in web.browser("vera").get("/studies/1.2").text
    assert "Doe" not in web.browser("vera").get("/api/studies/1.2").text


# Acts


def codes(ledger: Ledger) -> list[tuple[str, str]]:
    return [(row.code, row.detail) for row in rows(ledger, event)]


def test_a_refused_job_is_found_mended_and_queued_again(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    refused_job(ledger, clock)
    client = web.browser("olga")
    assert "It is queued." in act(client, "requeue-job", job=1, back="/studies/1.2").text
    assert states(ledger, job) == ["QUEUED"]
    assert ("JOB_REQUEUED", "by olga") in codes(ledger)
    assert "Nothing to do" in act(client, "requeue-job", job=1).text
    assert client.get("/api/attention").json() == {"attention": []}


def test_an_act_needs_a_yes_and_a_reason_where_one_is_asked_for(
    web: Web, ledger: Ledger, clock: Any
) -> None:
    refused_job(ledger, clock)
    client = web.browser("olga")
    token = {"form_token": token_on(client.get("/"))}
    assert client.post("/act/requeue-job", data={"job": 1, **token}).status_code == 422
    assert act(client, "cancel-job", job=1).status_code == 422
    assert act(client, "cancel-job", job=1, reason=" \n ").status_code == 422
    assert states(ledger, job) == ["REFUSED"]
    assert act(client, "cancel-job", job=1, reason="not\nneeded").status_code == 200
    assert ("JOB_CANCELLED", "by olga: not needed") in codes(ledger)


@pytest.mark.parametrize(
    ("name", "values"),
    [("requeue-job", {}), ("requeue-job", {"job": "x"}), ("requeue-job", {"job": "9" * 30}),
     ("release-study", {"study": "no uid"}), ("pause-destination", {"destination": "elsewhere"}),
     ("acknowledge", {"events": ""}), ("acknowledge", {"events": "1,,2"}),
     ("fetch-study", {"study": "1.2", "peer": "NOBODY"}),
     ("acknowledge-requestor", {"ae": "x" * 17})],
)  # fmt: skip
def test_an_act_upon_nothing_that_is_known_is_refused(
    web: Web, ledger: Ledger, name: str, values: dict[str, str]
) -> None:
    client = web.program("olga")
    assert client.get(f"/act/{name}", params=values).status_code == 422
    answer = client.post(f"/api/act/{name}", data={**values, "confirm": "yes", "reason": "r"})
    assert answer.status_code == 422
    assert codes(ledger) == []


def test_a_held_study_is_released_with_a_reason(web: Web, ledger: Ledger) -> None:
    receive(ledger, header(), header("1.2.3.2", patient_key="other"))
    assert states(ledger, study) == ["HELD"]
    client = web.browser("olga")
    assert "Release" in client.get("/").text
    act(client, "release-study", study="1.2", reason="the same person")
    assert states(ledger, study) == ["OPEN"]
    assert ("STUDY_RELEASED", "by olga: the same person") in codes(ledger)


def test_results_are_sent_again_and_cancelled(web: Web, ledger: Ledger, clock: Any) -> None:
    done = analysed(ledger, clock)
    settle(ledger, taken(ledger), Refuse("NOT_AUTHORIZED", "no"))
    client = web.browser("olga")
    assert saying("NOT_AUTHORIZED").what in client.get("/studies/1.2").text
    act(client, "requeue-delivery", delivery=1)
    assert set(states(ledger, delivery)) == {"PENDING"}
    deliver_all(ledger)
    act(client, "send-again", job=done.id, destination="archive")
    assert set(states(ledger, delivery)) == {"PENDING"}
    act(client, "cancel-deliveries", job=done.id, destination="archive", reason="moved")
    assert set(states(ledger, delivery)) == {"CANCELLED"}


def test_attention_is_acknowledged(web: Web, ledger: Ledger, clock: Any) -> None:
    refused_job(ledger, clock)
    client = web.browser("olga")
    (row,) = client.get("/api/attention").json()["attention"]
    act(client, "acknowledge", events=row["id"])
    assert client.get("/api/attention").json() == {"attention": []}
    assert ("ACKNOWLEDGED", "by olga: 1 events") in codes(ledger)


def test_a_destination_that_is_away_is_tested_and_paused(web: Web, ledger: Ledger) -> None:
    client = web.browser("olga")
    assert (
        "does not answer C-ECHO: NO_CONNECTION"
        in act(client, "test-destination", destination="archive").text
    )
    assert codes(ledger)[0][0] == "PEER_TESTED"
    assert codes(ledger)[0][1].startswith("archive by olga: NO_CONNECTION")
    act(client, "pause-destination", destination="archive", reason="the archive is moved")
    assert "paused" in client.get("/").text
    act(client, "resume-destination", destination="archive")
    assert [code for code, _ in codes(ledger)][1:] == ["DESTINATION_PAUSED", "DESTINATION_RESUMED"]


def test_a_fetch_is_asked_for_once_and_its_failure_told(
    web: Web, ledger: Ledger, tmp_path: Path
) -> None:
    client = web.browser("olga")
    assert "being fetched" in act(client, "fetch-study", study="1.2.3", peer="PACS").text
    assert "Nothing to do" in act(client, "fetch-study", study="1.2.3", peer="PACS").text
    assert codes(ledger) == [("FETCH_REQUESTED", "1.2.3 from PACS by olga")]


def test_back_leads_to_a_page_of_this_site(web: Web) -> None:
    client = web.browser("olga")
    for wrong in ("//evil.test", "https://evil.test", "javascript:alert(1)"):
        asked = client.get("/act/requeue-job", params={"job": 1, "back": wrong})
        assert 'name="back" value="/"' in asked.text
