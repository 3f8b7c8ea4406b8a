"""What a configuration may say of the audit trail, and what `check` has against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dicomnode.checks import check_tls
from dicomnode.domain.audit_policy import AuditPolicy, AuditRetry
from dicomnode.errors import SettingsError
from dicomnode.settings import Settings, parse
from dicomnode.settings.reloading import reload

HERE = Path("/etc/dicomnode/node.yaml")


def policy(text: str) -> AuditPolicy:
    return parse(f"audit: {text}", HERE).audit


def test_there_is_none_unless_it_is_wanted() -> None:
    assert policy("{}").sinks == ()
    assert policy("{}").room == 0
    assert policy("{file: {}}").sinks == ("file",)
    both = policy("{file: {}, syslog: {host: arr}, max_waiting: 5000}")
    assert both.sinks == ("file", "syslog")
    assert both.room == 5000


def test_a_retry_that_is_told_in_part_keeps_the_other_default() -> None:
    assert policy("{retry: {first_seconds: 1}}").retry == AuditRetry(first_seconds=1)
    assert policy("{retry: {first_seconds: 1}}").retry.ceiling_seconds == 120


def test_places_are_relative_to_the_configuration() -> None:
    settings = parse(
        "audit: {file: {folder: trail}, syslog: {host: arr, tls: {ca: arr.pem}}}", HERE
    )
    assert settings.audit_folder == HERE.parent / "trail"
    assert settings.audit.syslog is not None
    assert settings.audit.syslog.tls.ca == HERE.parent / "arr.pem"
    assert parse("{audit: {file: {}}, storage: {folder: /s}}", HERE).audit_folder == Path(
        "/s/audit"
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{syslog: {host: arr, transport: udp}}", "audit.syslog.transport: by udp patients' names"),
        ("{syslog: {}}", "audit.syslog.host: is missing"),
        ("{syslog: {host: ''}}", "audit.syslog.host: is empty"),
        ("{syslog: {host: arr, port: 0}}", "audit.syslog.port: must be 1 to 65535"),
        ("{syslog: {host: arr, transport: tcp}}", "audit.syslog.transport: "),
        ("{syslog: {host: arr, tls: {key: k}}}", "audit.syslog.tls: certificate and key go"),
        ("{file: {max_bytes: 1}}", "audit.file.max_bytes: must be at least 4096"),
        ("{file: {max_days: 0}}", "audit.file.max_days: must be more than 0"),
        ("{file: {keep_days: 1}}", "audit.file.keep_days: must not be less than max_days"),
        ("{max_waiting: 10}", "audit.max_waiting: must be at least 1000"),
        ("{alarm_seconds: 0}", "audit.alarm_seconds: must be more than 0"),
        ("{files: {}}", "audit.files: unknown key"),
    ],
)
def test_faults_are_told_where_they_stand(text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        policy(text)
    assert fault in str(error.value)


def test_udp_goes_where_that_is_meant() -> None:
    made = policy("{syslog: {host: arr, transport: udp, allow_unencrypted: true}}")
    assert made.syslog is not None
    assert made.syslog.transport == "udp"


def test_check_looks_at_the_certificates(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("audit:\n  syslog:\n    host: arr\n    tls: {ca: missing.pem}\n")
    (line,) = check_tls(parse(config.read_text(), config), config)
    assert line.startswith(f"{config}:4:")
    assert "audit.syslog.tls.ca" in line
    assert "cannot be read" in line


def test_it_can_be_switched_while_the_node_runs() -> None:
    before, after = Settings(), parse("audit: {file: {}}", HERE)
    found = reload(before, after)
    assert found.changed == ("audit",)
    assert found.settings.audit.sinks == ("file",)


def test_it_is_told_as_it_is_read() -> None:
    made = policy("{file: {}, syslog: {host: arr}}")
    adapter = TypeAdapter(AuditPolicy)
    assert adapter.validate_json(adapter.dump_json(made)) == made
