"""A lost or damaged ledger comes back from a backup and the spool; nothing is overwritten."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ledger_kit import claimed, close, deliver_all, events, finish, rows, states
from peers import HOST, Postgres, postgres_bin
from small_ct import CT, encoded, instance
from typer.testing import CliRunner, Result

from dicomnode import cli, settings
from dicomnode.domain.assembly import AssemblyPolicy
from dicomnode.errors import BackupError, LedgerError
from dicomnode.instances import file_prefix, read_file, seals
from dicomnode.instances.seals import Seal
from dicomnode.ledger import actions
from dicomnode.ledger.tables import delivery, job, result, study
from dicomnode.ledger.tables import instance as instances
from dicomnode.services.common import Context, open_context
from dicomnode.services.desk import Desk, Item, Seat
from dicomnode.services.messages import Store
from dicomnode.services.recovery import check_spool

SYNTAX = "1.2.840.10008.1.2.1"
AT_ONCE = AssemblyPolicy(study_quiet_seconds=0.001, series_quiet_seconds=0.001)
FIRST, SECOND = [f"1.2.3.{n}" for n in (1, 2)], [f"1.2.3.{n}" for n in (3, 4)]


@dataclass
class House:
    """A node's folder and configuration; its processes do not run."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "dicomnode.yaml"

    @property
    def file(self) -> Path:
        return self.folder / "state" / "ledger.sqlite"

    @contextmanager
    def open(self) -> Iterator[Context]:
        context = open_context(settings.load(self.config), "receive")
        try:
            yield context
        finally:
            context.ledger.close()

    def come(self, *uids: str, series: str = "1.2.3", study: str = "1.2") -> None:
        """Let instances come through the desk."""
        with self.open() as context:
            desk = Desk(context)
            for uid in uids:
                data = encoded(
                    instance(SOPInstanceUID=uid, SeriesInstanceUID=series, StudyInstanceUID=study)
                )
                path = context.spool.write_arriving([file_prefix(CT, uid, SYNTAX) + data])
                header, digest, size = read_file(path, context.patient_key)
                store = Store(
                    header=header,
                    sop_class_uid=CT,
                    sop_instance_uid=uid,
                    digest=digest,
                    size=size,
                    tmp=path.name,
                )
                assert getattr(desk.serve([Item(Seat(), store)])[0].reply, "status", None) == 0

    def analyse(self) -> None:
        """Close, and record results whose files lie in the spool."""
        with self.open() as context:
            assert close(context.ledger, AT_ONCE) == 1
            done = claimed(context.ledger)
            folder = context.spool.results / str(done.id)
            folder.mkdir(parents=True)
            seg = encoded(instance(SOPInstanceUID="2.25.1.0", StudyInstanceUID=done.study_uid))
            (folder / "2.25.1.0.dcm").write_bytes(file_prefix(CT, "2.25.1.0", SYNTAX) + seg)
            assert finish(context.ledger, done)
            deliver_all(context.ledger)

    def look(self, table: Any) -> list[Any]:
        with self.open() as context:
            return rows(context.ledger, table)

    def states(self, table: Any) -> list[str]:
        with self.open() as context:
            return states(context.ledger, table)

    def codes(self) -> list[tuple[str, str]]:
        with self.open() as context:
            return events(context.ledger)

    def names(self) -> list[str]:
        return sorted(row.sop_instance_uid for row in self.look(instances))

    def lose(self) -> None:
        for path in self.file.parent.glob("ledger.sqlite*"):
            path.unlink()

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli.app, [*arguments, "-c", str(self.config)])


@pytest.fixture
def house(tmp_path: Path) -> House:
    (tmp_path / "dicomnode.yaml").write_text(
        "node: {id: one}\nstorage: {folder: state}\n"
        "assembly: {study_quiet_seconds: 0.001, series_quiet_seconds: 0.001}\n"
    )
    return House(tmp_path)


def test_a_lost_ledger_comes_back_from_a_backup_and_the_spool(house: House) -> None:
    house.come(*FIRST)
    house.analyse()
    with house.open():  # others use it meanwhile
        made = house.run("backup", str(house.folder / "backup"))
    assert made.exit_code == 0, made.output
    assert stat.S_IMODE((house.folder / "backup").stat().st_mode) == 0o600
    house.come("1.5.1", series="1.5.9", study="1.5")
    before = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
    house.lose()

    done = house.run("recover", "--backup", str(house.folder / "backup"))
    assert done.exit_code == 0, done.output
    assert "1 files without a row were registered" in done.output
    assert house.names() == sorted([*FIRST, "1.5.1"])
    after = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
    assert after == before
    assert set(house.states(study)) <= {"OPEN", "CLOSED"}
    again = house.run("recover")
    assert again.exit_code == 0, again.output
    assert "0 files without a row were registered" in again.output
    assert house.names() == sorted([*FIRST, "1.5.1"])


def test_what_was_analysed_since_the_backup_is_held_and_not_analysed_twice(house: House) -> None:
    house.come(*FIRST)
    assert house.run("backup", str(house.folder / "backup")).exit_code == 0
    house.analyse()
    house.lose()
    done = house.run("recover", "--backup", str(house.folder / "backup"))
    assert done.exit_code == 0, done.output
    assert "1 studies are held" in done.output
    assert house.states(study) == ["HELD"]
    assert ("RESULTS_UNKNOWN", "attention") in house.codes()
    with house.open() as context:
        assert close(context.ledger, AT_ONCE) == 0
        assert [path.name[:10] for path in context.spool.results.iterdir()] == ["unknown-1-"]
        with context.ledger.transaction() as tx:
            assert actions.release_study(tx, "1.2", "somebody", "the archive was looked at")
        assert close(context.ledger, AT_ONCE) == 1
        assert states(context.ledger, job) == ["QUEUED"]


def test_without_a_backup_the_spool_alone_says_what_came(house: House) -> None:
    house.come(*FIRST)
    house.analyse()
    house.come("1.5.1", series="1.5.9", study="1.5")
    house.lose()
    with house.open() as context:  # as `receive` does when it starts
        check_spool(context, Desk(context))
    assert house.names() == sorted([*FIRST, "1.5.1"])
    assert sorted(house.states(study)) == ["HELD", "OPEN"]


def test_a_sealed_file_of_an_association_that_the_ledger_forgot_gets_its_row(house: House) -> None:
    with house.open() as context:
        data = encoded(instance(SOPInstanceUID="1.2.3.1"))
        path = context.spool.write_arriving([file_prefix(CT, "1.2.3.1", SYNTAX) + data])
        _, digest, size = read_file(path, context.patient_key)
        with path.open("r+b") as file:
            file.write(seals.encode(Seal(size=size, digest=digest, association_id=77)))
    house.lose()
    with house.open() as context:
        check_spool(context, Desk(context))
    assert house.names() == ["1.2.3.1"]


def test_rows_without_files_are_said_and_kept_again_when_they_come_again(house: House) -> None:
    house.come(*FIRST)
    (path,) = (house.folder / "state" / "spool").rglob("1.2.3.1.dcm")
    path.unlink()
    done = house.run("recover")
    assert "1 rows have no file any more" in done.output
    assert ("BYTES_LOST", "attention") in house.codes()
    house.come(FIRST[0])
    assert path.exists()
    assert [row.purged_at for row in house.look(instances)] == [None, None]


def test_what_cannot_be_read_stays_and_is_said(house: House) -> None:
    house.come(*FIRST)
    odd = house.folder / "state/spool/instances/1.2/1.2.3/1.2.3.99.dcm"
    odd.write_bytes(b"odd")
    done = house.run("recover")
    assert done.exit_code == 0
    assert "1.2.3.99.dcm cannot be read" in done.output
    assert odd.exists()


def test_a_damaged_ledger_is_said_and_nothing_is_overwritten(house: House) -> None:
    house.come(*FIRST)
    assert house.run("backup", str(house.folder / "backup")).exit_code == 0
    with sqlite3.connect(house.file) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = opened.execute("PRAGMA page_size").fetchone()
        (page,) = opened.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'instance'"
        ).fetchone()
    with house.file.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    damaged = house.file.read_bytes()

    refused = house.run("backup", str(house.folder / "backup-2"))
    assert refused.exit_code == 1
    assert isinstance(refused.exception, BackupError)
    assert not (house.folder / "backup-2").exists()
    with pytest.raises(LedgerError, match="malformed"), house.open() as context:
        check_spool(context, Desk(context))
    assert house.file.read_bytes() == damaged

    done = house.run("recover", "--backup", str(house.folder / "backup"))
    assert done.exit_code == 0, done.output
    assert house.names() == FIRST
    assert len(_aside(house)) >= 1  # what was damaged is still there


def _aside(house: House) -> list[Path]:
    return [path for path in house.file.parent.glob("ledger.sqlite.2*") if path.is_file()]


def test_a_header_that_is_no_ledger_is_said(house: House) -> None:
    house.come(*FIRST)
    house.lose()
    house.file.write_bytes(b"not a database " * 1000)
    before = house.file.read_bytes()
    with pytest.raises(LedgerError, match="not a database"), house.open():
        pass
    assert house.file.read_bytes() == before


def test_another_nodes_key_is_not_overwritten(house: House) -> None:
    house.come(*FIRST)
    assert house.run("backup", str(house.folder / "backup")).exit_code == 0
    key = house.folder / "state" / "patient.key"
    key.write_bytes(b"another key of 32 bytes ........")
    ledger = house.file.read_bytes()
    refused = house.run("recover", "--backup", str(house.folder / "backup"))
    assert isinstance(refused.exception, BackupError)
    assert house.file.read_bytes() == ledger
    key.unlink()
    assert house.run("recover", "--backup", str(house.folder / "backup")).exit_code == 0
    assert len(key.read_bytes()) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("fault", ["cut", "no backup", "missing"])
def test_a_backup_that_is_none_changes_nothing(house: House, fault: str) -> None:
    house.come(*FIRST)
    made = house.folder / "backup"
    assert house.run("backup", str(made)).exit_code == 0
    data = made.read_bytes()
    if fault == "cut":
        made.write_bytes(data[: len(data) // 2])
    elif fault == "no backup":
        shutil.make_archive(str(made), "gztar", house.folder / "state" / "spool")
        made.with_name("backup.tar.gz").rename(made)
    else:
        made.unlink()
    refused = house.run("recover", "--backup", str(made))
    assert isinstance(refused.exception, BackupError), refused.output
    assert house.names() == FIRST


def test_a_node_that_runs_is_not_recovered(house: House) -> None:
    house.come(*FIRST)
    with house.open() as context, context.spool.only("work"):
        refused = house.run("recover")
    assert refused.exit_code == 1
    assert "another process runs the role work" in str(refused.exception)


def test_on_postgresql_the_tools_of_the_server_are_named(house: House) -> None:
    house.config.write_text(
        "storage: {folder: state, ledger: 'postgresql+psycopg://nobody@localhost/x'}\n"
    )
    refused = house.run("backup", str(house.folder / "backup"))
    assert "pg_dump" in str(refused.exception)


# By the commands of docs/install.md


@pytest.mark.peer("rsync")
def test_ledger_and_spool_come_back_by_the_commands_of_the_page(house: House) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/install.md").read_text()
    section = page.split("## Backup")[1]
    backup, restore = re.findall(r"((?:^ {4}(?:dicomnode|rsync) .+\n)+)", section, re.MULTILINE)

    def run_lines(block: str) -> None:
        text = block.replace("/backup/", f"{house.folder}/copy/")
        text = text.replace("/var/lib/dicomnode/", f"{house.folder}/state/")
        text = text.replace("CONFIG", str(house.config))
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(["bash", "-e", "-c", text], check=True, env={**os.environ, "PATH": path})

    house.come(*FIRST)
    house.analyse()
    (house.folder / "copy").mkdir()
    run_lines(backup)
    before = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
    (house.folder / "state").rename(house.folder / "lost")
    (house.folder / "state").mkdir()

    run_lines(restore)
    assert house.names() == sorted(FIRST)
    after = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
    assert after == before
    with house.open() as context:
        for row in rows(context.ledger, instances):
            assert (context.spool.root / row.path).is_file()


# On PostgreSQL, by the commands of docs/postgresql.md

PAGE = (Path(__file__).resolve().parents[2] / "docs/postgresql.md").read_text()


def run_line(beginning: str, postgres: Postgres, folder: Path) -> None:
    """Run the page's line that begins so, as it stands there but for its folder."""
    (line,) = re.findall(rf"^ {{4}}({beginning} .*)$", PAGE, re.MULTILINE)
    programs = postgres_bin()
    subprocess.run(
        ["bash", "-c", line.replace("/backup/", f"{folder}/")],
        check=True,
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": HOST,
            "PGPORT": str(postgres.port),
            "PGUSER": "node",
            "PGDATABASE": "postgres",
        },
    )


@pytest.mark.peer("postgres")
def test_a_ledger_on_postgresql_comes_back_from_its_dump(house: House, postgres: Postgres) -> None:
    run_line("createuser", postgres, house.folder)
    run_line("createdb", postgres, house.folder)
    url = f"postgresql+psycopg://dicomnode@{HOST}:{postgres.port}/dicomnode"
    (house.folder / "ledger.url").write_text(url + "\n")
    (house.folder / "ledger.url").chmod(0o600)
    house.config.write_text(
        house.config.read_text().replace("folder: state", "folder: state, ledger: file:ledger.url")
    )
    assert house.run("check").exit_code == 0
    try:
        house.come(*FIRST)
        house.analyse()
        refused = house.run("backup", str(house.folder / "backup"))
        assert isinstance(refused.exception, BackupError)
        run_line("pg_dump", postgres, house.folder)
        before = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
        house.come("1.5.1", series="1.5.9", study="1.5")
        postgres.drop(url)

        run_line("createdb", postgres, house.folder)
        run_line("pg_restore", postgres, house.folder)
        done = house.run("recover")
        assert done.exit_code == 0, done.output
        assert "1 files without a row were registered" in done.output
        assert house.names() == sorted([*FIRST, "1.5.1"])
        after = (house.states(delivery), [row.sop_instance_uid for row in house.look(result)])
        assert after == before
        assert set(house.states(study)) <= {"OPEN", "CLOSED"}
    finally:
        postgres.drop(url)
