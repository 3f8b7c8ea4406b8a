"""The configuration: what it may say, and how it is told what is wrong with it."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from dicomnode.domain.audit_policy import AuditFile, AuditRetry, AuditSyslog
from dicomnode.domain.plans import ModelOptions
from dicomnode.domain.routing import Condition, Rule
from dicomnode.domain.security import PeerTls, ServerTls
from dicomnode.errors import SettingsError
from dicomnode.settings import (
    DEFAULT_NAME,
    ENVIRONMENT,
    Destination,
    Peer,
    Settings,
    find_config,
    load,
    parse,
    where,
)

PACKAGED = Path(str(resources.files("dicomnode").joinpath(DEFAULT_NAME)))
COMMENTED_KEY = re.compile(r"^( *)# ([a-z_0-9]+: [^#\n]*?)( *#.*)?$", re.MULTILINE)
HERE = Path("/etc/dicomnode/node.yaml")
PLACE = re.compile(rf"^{HERE}:(\d+):\d+: ")

PEERS = """\
peers:
  PACS: {ae_title: PACS, host: pacs, port: 104}
destinations:
  pacs: {peer: PACS}
"""


def faults(text: str) -> list[str]:
    """Return the faults of a configuration as `line: key: ...`, without path and column."""
    with pytest.raises(SettingsError) as error:
        parse(text, HERE)
    lines = str(error.value).splitlines()
    assert all(line.startswith(f"{HERE}:") for line in lines), lines
    return [PLACE.sub(r"\1: ", line, count=1) for line in lines]


# The configuration in the package


def test_the_packaged_configuration_is_good() -> None:
    settings = load(PACKAGED)
    assert settings.node.bind == "127.0.0.1"
    assert [rule.model for rule in settings.rules] == ["demo"]


def test_it_says_the_defaults_of_the_code() -> None:
    """Every section but the examples says of itself that its values are the default."""
    said = yaml.safe_load(PACKAGED.read_text())
    defaults = Settings().model_dump(mode="json")
    compared = 0
    for section in ("node", "receive", "assembly", "work", "send", "storage", "limits"):
        for key, value in _flat(said[section] or {}):
            assert _at(defaults[section], key) == value, f"{section}.{key}"
            compared += 1
    assert compared > 15


def _flat(section: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (f"{key}.{rest}" if rest else key, inner)
        for key, value in section.items()
        for rest, inner in (_flat(value) if isinstance(value, dict) else [("", value)])
    ]


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def test_every_key_that_it_names_in_a_comment_is_known() -> None:
    text, count = COMMENTED_KEY.subn(r"\1\2", PACKAGED.read_text())
    assert count >= 10
    # A folder stands in place of a peer, and not beside it.
    settings = parse(re.sub(r" +folder: .*\n(?= +objects)", "", text), PACKAGED)
    assert settings.storage.ledger is not None
    assert settings.rules[0].when.sending_ae == ("MODALITY",)


def test_it_leaves_no_key_out() -> None:
    said = yaml.safe_load(COMMENTED_KEY.sub(r"\1\2", PACKAGED.read_text()))
    for name, model in (
        *((name, field.annotation) for name, field in Settings.model_fields.items()),
        ("peers.MODALITY+peers.ARCHIVE", Peer),
        ("destinations.archive+destinations.service", Destination),
        ("node.tls", ServerTls),
        ("peers.ARCHIVE.tls", PeerTls),
        ("rules.0", Rule),
        ("rules.0.when", Condition),
        ("rules.0.options", ModelOptions),
        ("send.retry", type(Settings().send.retry)),
        ("audit.file", AuditFile),
        ("audit.syslog", AuditSyslog),
        ("audit.syslog.tls", PeerTls),
        ("audit.retry", AuditRetry),
    ):
        if name in ("peers", "destinations", "rules"):
            continue
        keys: set[str] = set()
        for part in name.split("+"):
            keys |= set(_down(said, part))
        assert keys == _keys_of(model), name


def _down(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value[int(part)] if part.isdigit() else value[part]
    return value


def _keys_of(model: Any) -> set[str]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return set(model.model_fields)
    assert is_dataclass(model), model
    return {field.name for field in fields(model)}


def test_the_one_in_config_is_the_one_in_the_package() -> None:
    shown = Path(__file__).parents[2] / "config" / DEFAULT_NAME
    assert shown.read_text() == PACKAGED.read_text()


# Which file


def test_the_file_is_the_one_given_else_the_environments_else_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert find_config(None) == PACKAGED
    named = tmp_path / "named.yaml"
    named.write_text("node: {ae_title: NAMED}")
    monkeypatch.setenv(ENVIRONMENT, str(named))
    assert find_config(None) == named
    assert load().node.ae_title == "NAMED"
    assert find_config(Path("given.yaml")) == Path("given.yaml")
    monkeypatch.setenv(ENVIRONMENT, "")
    assert find_config(None) == PACKAGED


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(SettingsError, match=f"{path}: cannot be read"):
        load(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00node")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(path)


# Places


def test_relative_places_are_beside_the_file() -> None:
    settings = parse(
        "storage: {folder: state, patient_key_file: ../keys/k}\n"
        "work: {model_folders: [models, /m]}",
        HERE,
    )
    assert settings.folder == HERE.parent / "state"
    assert settings.spool_folder == HERE.parent / "state" / "spool"
    assert settings.ledger_url == f"sqlite:///{HERE.parent}/state/ledger.sqlite"
    assert settings.patient_key_file == HERE.parent / "../keys/k"
    assert settings.work.model_folders == (HERE.parent / "models", Path("/m"))


def test_absolute_places_and_the_home_folder_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = parse("storage: {folder: /var/x, patient_key_file: ~/k}", HERE)
    assert settings.folder == Path("/var/x")
    assert settings.patient_key_file == Path("/home/somebody/k")


def test_without_a_folder_it_is_systemds_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert parse("", HERE).folder == Path("/home/somebody/.local/state/dicomnode")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/dicomnode")
    assert parse("", HERE).folder == Path("/var/lib/dicomnode")
    assert parse("", HERE).patient_key_file == Path("/var/lib/dicomnode/patient.key")


def test_a_ledger_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://dicomnode@db/dicomnode"
    assert parse(f"storage: {{ledger: '{url}'}}", HERE).ledger_url == url


TLS = """
node:
  port: null
  tls: {port: 2762, certificate: tls/node.pem, key: /keys/node.key, client_ca: tls/ca.pem}
peers:
  CT1:
    ae_title: CT1
    host: 10.1.1.20
    accept: true
    addresses: [10.1.1.20, "::ffff:10.1.2.0/120", fd00::/8]
    max_associations: 4
    certificate_sha256: %s
    tls: {ca: tls/ct1.pem, certificate: tls/node.pem, key: ~/node.key}
"""


def test_tls_and_where_its_files_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = parse(TLS % ":".join(["A1"] * 32), HERE)
    tls, peer = settings.node.tls, settings.peers["CT1"].tls
    assert settings.node.port is None
    assert tls == ServerTls(
        port=2762,
        certificate=HERE.parent / "tls/node.pem",
        key=Path("/keys/node.key"),
        client_ca=HERE.parent / "tls/ca.pem",
    )
    assert peer == PeerTls(
        ca=HERE.parent / "tls/ct1.pem",
        certificate=HERE.parent / "tls/node.pem",
        key=Path("/home/somebody/node.key"),
    )


def test_the_rules_for_associations_are_those_of_the_peers() -> None:
    rules = parse(TLS % ("a1" * 32), HERE).association_rules
    (peer,) = rules.peers
    assert (rules.ae_title, rules.max_associations) == ("DICOMNODE", 50)
    assert (peer.name, peer.ae_title, peer.accept) == ("CT1", "CT1", True)
    assert [str(network) for network in peer.addresses] == [
        "10.1.1.20/32",
        "10.1.2.0/24",
        "fd00::/8",
    ]
    assert (peer.max_associations, peer.certificates) == (4, {"a1" * 32})


def test_where_a_key_stands(tmp_path: Path) -> None:
    path = tmp_path / "dicomnode.yaml"
    path.write_text("# one\npeers:\n  CT1:\n    tls:\n      ca: x\n")
    assert where(path, "peers.CT1.tls.ca") == f"{path}:5:7: peers.CT1.tls.ca"
    assert where(path, "peers.CT1.tls.key") == f"{path}:4:5: peers.CT1.tls.key"


def test_settings_cannot_be_changed() -> None:
    settings = parse(PEERS, HERE)
    with pytest.raises(ValueError, match="frozen"):
        settings.node.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("said", "takes"),
    [
        ("", ("seg", "preview", "sr")),
        (", profile: pacs", ("seg", "preview", "sr")),
        (", profile: pictures", ("preview",)),
        (", profile: modern", ("labelmap", "preview", "sr")),
        (", profile: rtstruct", ("rtstruct",)),
        (", objects: [sr, rtstruct, seg]", ("seg", "rtstruct", "sr")),
        (", profile: pacs, objects: [preview]", ("preview",)),
    ],
)
def test_what_a_destination_takes(said: str, takes: tuple[str, ...]) -> None:
    settings = parse(PEERS + f"  x: {{peer: PACS{said}}}", HERE)
    assert settings.destinations["x"].takes == takes


def test_the_peer_behind_a_destination() -> None:
    assert parse(PEERS, HERE).peer_of("pacs").host == "pacs"


@pytest.mark.parametrize("text", ["", "# nothing\n", "node:\n  # nothing\nlimits:\n", "{}"])
def test_what_is_not_said_is_the_default(text: str) -> None:
    assert parse(text, HERE) == Settings()


# Faults: file, line, key, what was expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "nod: {}",
            "1: nod: unknown key; known here: assembly, audit, choosing, content, destinations,",
        ),
        ("\nnode:\n  prot: 1", "3: node.prot: unknown key; known here: ae_title, bind, id, port"),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    accepts: true",
            "5: peers.P.accepts: unknown key; known here: accept, addresses, ae_title,",
        ),
        (
            PEERS + "  x: {peer: PACS, profil: pacs}",
            "5: destinations.x.profil: unknown key; known here: allow_demo, commitment,",
        ),
        (
            PEERS + "  x: {peer: PACS, objects: [seg, pdf]}",
            "5: destinations.x.objects: unknown object 'pdf'; known are seg, seg_organs, ",
        ),
        (
            "peers:\n  P: {ae_title: P, host: h, accept: true, commit_here: true}",
            "2: peers.P.commit_here: it needs accept: true to ask, and a port to be told",
        ),
        (
            PEERS + "  x: {peer: PACS, window: 20-6}",
            "5: destinations.x.window: expected two times of day, as in 20:00-06:00",
        ),
        (
            PEERS + "  x: {peer: PACS, max_mbit_per_second: 0}",
            "5: destinations.x.max_mbit_per_second: must be more than 0 and at most 1e+06",
        ),
        (
            "assembly:\n  quiet: 1",
            "2: assembly.quiet: unknown key; known here: count_apart_seconds, count_wait_seconds,",
        ),
        (
            "rules:\n  - name: a\n    model: b\n    wen: {}",
            "4: rules.0.wen: unknown key; known here: any_age, choose, destinations, model,",
        ),
        (
            "rules:\n  - name: a\n    model: b\n    when:\n      modalities: [CT]",
            "5: rules.0.when.modalities: unknown key; known here: body_part, contrast,",
        ),
        (
            "send:\n  retry:\n    first: 1",
            "3: send.retry.first: unknown key; known here: ceiling_seconds, first_seconds",
        ),
        ("work:\n  gpu: 0", "2: work.gpu: unknown key; known here: devices, jobs_per_process,"),
        ("storage:\n  spool: x", "2: storage.spool: unknown key; known here: folder, ledger,"),
        ("limits:\n  disk: 1", "2: limits.disk: unknown key; known here: artim_seconds,"),
    ],
)
def test_an_unknown_key_is_told_with_the_known_ones(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("node: {port: null}", "1: node.port: there is no port at all"),
        (
            "node:\n  port: 2762\n  tls: {port: 2762, certificate: c, key: k, client_ca: a}",
            "3: node.tls.port: the same as node.port",
        ),
        (
            "node:\n  tls: {port: 2762, certificate: c, key: k}",
            "2: node.tls: client_ca is missing",
        ),
        (
            "node:\n  tls:\n    port: 0\n    certificate: c\n    key: k\n    client_ca: a",
            "2: node.tls: port must be 1 to 65535",
        ),
        (
            "node:\n  tls: {port: 1, certificate: c, key: k, client_ca: a,\n    certificat: c}",
            "3: node.tls.certificat: unknown key; known here: certificate, client_ca,",
        ),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    addresses: [10.0.0.1/8]",
            "5: peers.P.addresses: '10.0.0.1/8' has host bits set; the network is 10.0.0.0/8",
        ),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    addresses: [ct1.example]",
            "5: peers.P.addresses: 'ct1.example' is no IP address",
        ),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    max_associations: 0",
            "5: peers.P.max_associations: Input should be greater",
        ),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    certificate_sha256: abc",
            "5: peers.P.certificate_sha256: a SHA-256 fingerprint has 64 hexadecimal digits",
        ),
        (
            f"peers:\n  P:\n    ae_title: P\n    host: h\n    certificate_sha256: {'a1' * 32}",
            "5: peers.P.certificate_sha256: needs node.tls with client certificates",
        ),
        (
            "peers:\n  P:\n    ae_title: P\n    host: h\n    tls: {key: k}",
            "5: peers.P.tls: certificate and key go together",
        ),
        ("receive: {unknown_sop_classes: drop}", "1: receive.unknown_sop_classes: Input should be"),
        ("node:\n  port: 0", "2: node.port: Input should be greater than or equal to 1 (found 0)"),
        ("node: {port: eleven}", "1: node.port: Input should be a valid integer"),
        ("node: {port: 65536}", "1: node.port: Input should be less than or equal to 65535"),
        ("node: {ae_title: ''}", "1: node.ae_title: an AE title has 1 to 16 printable ASCII"),
        ("node: {ae_title: SEVENTEEN_LETTERS}", "1: node.ae_title: an AE title has 1 to 16"),
        ("node: {ae_title: 'A\\B'}", "1: node.ae_title: an AE title has 1 to 16"),
        ("node: {ae_title: Ä}", "1: node.ae_title: an AE title has 1 to 16"),
        ("node: {id: a/b}", "1: node.id: String should match pattern"),
        ("peers:\n  P: {host: h}", "2: peers.P.ae_title: is missing"),
        ("peers:\n  'a b': {ae_title: P, host: h}", "2: peers.a b."),
        ("work: {devices: gpu}", "1: work.devices.0: String should match pattern"),
        ("work: {max_attempts: 0}", "1: work.max_attempts: Input should be greater"),
        ("limits: {min_free_bytes: -1}", "1: limits.min_free_bytes: Input should be greater"),
        ("assembly:\n  study_quiet_seconds: 0", "1: assembly: study_quiet_seconds must be more"),
        ("rules:\n  - name: a", "2: rules.0.model: is missing"),
        ("rules: {name: a}", "1: rules: Input should be a valid"),
        ("node: [1]", "1: node: Input should be a valid"),
        (
            PEERS + "  x: {peer: PACS, folder: /srv}",
            "5: destinations.x.folder: in place of peer and stow_url, and not beside them",
        ),
        (PEERS + "  x: {}", "5: destinations.x.peer: name a peer, or stow_url, or folder"),
        (PEERS + "  x: {folder: srv}", "5: destinations.x.folder: expected an absolute path"),
        (
            PEERS + "  x: {peer: PACS, objects: [seg, table, nifti]}",
            "5: destinations.x.objects: nifti, table: no DICOM; for a folder only",
        ),
        (
            PEERS + "  x: {folder: /srv, iocm: true}",
            "5: destinations.x.iocm: a folder takes no rejection notes",
        ),
        (
            "peers:\n  P: {ae_title: P, host: h}\ndestinations:\n  d:\n    peer: Q",
            "5: destinations.d.peer: no peer is named 'Q' (peers: P)",
        ),
        (
            "peers:\n  P: {ae_title: P, host: h}\ndestinations:\n  d:\n    peer: P",
            "2: peers.P: needs a port, because destination 'd' uses it",
        ),
        (
            PEERS + "rules:\n- {name: a, model: null}\n- name: b\n  model: m\n"
            "  destinations:\n  - pacs\n  - other",
            "11: rules.1.destinations.1: no destination is named 'other' (destinations: pacs)",
        ),
        ("- a\n- b", "1: expected keys such as `node:` and `peers:`"),
        ("just a text", "1: expected keys such as"),
        ("node: {port: 1}\nnode: {port: 2}", "2: not valid YAML: the key 'node' stands twice"),
        ("node:\n  port: 1\n  port: 1", "3: not valid YAML: the key 'port' stands twice"),
        ("node:\n\tport: 1", "2: not valid YAML: found character"),
        ("node: {port: 1", "1: not valid YAML:"),
        ("node: [", "1: not valid YAML:"),
    ],
)
def test_a_fault_names_line_key_and_what_was_expected(text: str, fault: str) -> None:
    (found,) = faults(text)
    assert found.startswith(fault), found


def test_all_faults_are_told_at_once() -> None:
    assert [
        fault.split(":")[0] for fault in faults("node:\n  port: 0\n  x: 1\nlimits: {y: 2}")
    ] == [
        "2",
        "3",
        "4",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "node: !!python/object/apply:os.system ['touch /tmp/owned']",
        "node: !!python/name:os.system",
        "!!python/object/new:type {}",
        "node: !custom {}",
        "? [a, b]\n: c",
        "? {a: b}\n: c",
        "node: {[1]: 2}",
        "a: &a [*a]",
        "--- a: 1\n--- b: 2",
        "node: *nobody",
        "node: \x00",
        "node: \ud800",
        "%YAML 9.9\n--- {}",
        "1: 2",
        "null: 2",
        "node: {1: 2}",
        "node: &n {<<: {port: 1}, <<: {port: 2}}",
        "peers: {1: {ae_title: A, host: b}}",
        "storage: {folder: {a: b}}",
        "node: 2020-01-01",
        "node: {port: 1e999}",
        "node: {port: .nan}",
        "assembly: {study_quiet_seconds: .nan}",
        "assembly: {study_quiet_seconds: .inf}",
        "work: {lease_seconds: .inf}",
        "send: {give_up_after_days: .nan}",
        "send: {give_up_after_days: .inf}",
        "send: {timeout_seconds: .inf}",
        "send: {retry: {first_seconds: -1}}",
        "send: {retry: {first_seconds: .nan}}",
        "send: {retry: {ceiling_seconds: 0}}",
        "rules: [{name: a, model: b, when: {min_slice_thickness_mm: .nan}}]",
        "[" * 1500,
    ],
)
def test_hostile_yaml_is_a_fault_and_nothing_else(text: str) -> None:
    assert faults(text)
