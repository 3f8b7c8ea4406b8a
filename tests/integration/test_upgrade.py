"""Spools and ledgers of every schema there was: this version takes them over and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from nodes import Node
from peers import Orthanc
from scu import store
from sqlalchemy import create_engine, select
from upgrade_kit import (
    FIXTURES,
    OVERRIDES,
    hurried,
    schema_lines,
    study_states,
    thaw,
    uid_of,
    wires_of,
)

from dicomnode import settings
from dicomnode.ledger.schema import _config
from dicomnode.ledger.tables import job, result, study

FROZEN = sorted(path.parent.name for path in FIXTURES.glob("*/state.tar.xz"))
frozen = pytest.mark.parametrize("revision", FROZEN)


@frozen
def test_a_migration_that_was_released_is_not_edited(revision: str) -> None:
    engine = create_engine("sqlite://")
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with engine.connect():
        made = list(schema_lines(engine))
    engine.dispose()
    expected = (FIXTURES / revision / "schema.txt").read_text().splitlines()
    assert made == expected, "write another migration instead"


@frozen
def test_its_configuration_is_still_good(revision: str, tmp_path: Path) -> None:
    thaw(FIXTURES / revision, tmp_path)
    assert settings.load(tmp_path / "dicomnode.yaml").rules[0].model == "demo"


@frozen
@pytest.mark.peer("orthanc")
def test_what_was_left_is_finished(
    revision: str, node: Callable[..., Node], orthanc: Orthanc, tmp_path: Path
) -> None:
    running = node(archive=orthanc, overrides=OVERRIDES)
    thaw(FIXTURES / revision, running.folder)
    running.write_config()  # with the ports of today
    before = {path.relative_to(running.spool): path.read_bytes() for path in running.files()}
    running.start("run")
    finished = hurried(
        running,
        lambda status: (
            status["counts"]["jobs"] == {"DONE": 5}
            and status["counts"]["deliveries"] == {"DELIVERED": 10}
        ),
    )
    running.wait_for(finished, timeout=150)
    assert study_states(running) == {
        "delivered": "CLOSED",
        "waiting": "CLOSED",
        "queued": "CLOSED",
        "leased": "CLOSED",
        "held": "HELD",
        "open": "CLOSED",
    }
    for name in ("waiting", "queued", "leased", "open"):
        assert sorted(orthanc.results(uid_of(name))) == ["SEG", "SR"], name
    for name in ("delivered", "held"):
        assert orthanc.datasets(uid_of(name)) == [], f"{name} went again"
    after = {path.relative_to(running.spool): path.read_bytes() for path in running.files()}
    assert after == before, "nothing was lost, moved or changed"

    report = reports(running, "delivered")
    first, *_ = wires_of("delivered")
    assert store(running.port, first) == [0x0000]  # known: it changes nothing
    assert reports(running, "delivered") == report


def reports(running: Node, name: str) -> list[str]:
    """Return the UIDs of a study's reports."""
    with running.ledger.reading() as connection:
        return list(
            connection.execute(
                select(result.c.sop_instance_uid)
                .join(job, job.c.id == result.c.job_id)
                .join(study, study.c.id == job.c.study_id)
                .where(study.c.study_uid == uid_of(name), result.c.kind == "sr")
                .order_by(result.c.id)
            ).scalars()
        )
