"""What each command says with `--json`. Keys may be added; none changes its meaning or goes away.

Times are ISO 8601 in UTC. `docs/commands.md` is made from these, and the tests hold what the
commands say against them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from dicomnode.shapes.rows import Choice, Delivery, Job, Overview, Study, StudyEvents


class Rule(TypedDict):
    """A rule, and whether and why it takes a series."""

    rule: str
    matches: bool
    why: str


class Trial(Choice):
    """A series, and what the rules would do with it."""

    body_part: str
    calling_aes: list[str]
    rule: str | None
    destinations: list[str]
    rules: list[Rule]


class Tried(TypedDict):
    """A study of a folder or of the ledger, and what would be decided on its series."""

    study_uid: str
    series: list[Trial]


class Health(TypedDict):
    """Which roles of this node gave no sign of life, of those that have to run."""

    node_id: str
    silent: list[str]


class Echo(TypedDict):
    """Whether a destination or peer answers: DONE, or a code of operating.md."""

    name: str
    answer: str
    detail: str


class Taken(TypedDict):
    """What a destination accepts of one kind of object."""

    kind: str
    sop_class_uid: str
    sop_class: str
    accepts: list[str]
    sent_in: str | None


class Gets(TypedDict):
    """What would go to a destination for an object of its profile; null: nothing."""

    wanted: str
    gets: str | None
    sop_class: str | None
    refers_to: list[str]


class Probe(TypedDict):
    """What a destination takes; keys that may be missing are so where no association was had."""

    destination: str
    called_ae: str
    address: str
    answer: str
    detail: str
    echo: str
    tls: NotRequired[str | None]
    objects: NotRequired[list[Taken]]
    commitment: NotRequired[bool]
    profile: NotRequired[list[Gets]]


class Act(TypedDict):
    """What a person did; 0: there was nothing to do."""

    act: str
    count: int


class PutBack(Act):
    """What became of a file that was to be taken in again; `code` is null where there is none."""

    code: str | None
    detail: str


class Kept(TypedDict):
    """A file in quarantine, and why it is there; `status` was the answer to its sender."""

    name: str
    since: str
    size: int
    code: str
    detail: str
    status: int | None
    calling_ae: str
    sop_instance_uid: str


class Quarantine(TypedDict):
    """The newest files in quarantine; how many there are in all, and how large."""

    files: list[Kept]
    count: int
    bytes: int


class Fault(TypedDict):
    """One fault of a configuration; where it stands, if that is known."""

    line: int | None
    column: int | None
    key: str | None
    message: str


class Check(TypedDict):
    """Whether a configuration is good."""

    file: str
    good: bool
    faults: list[Fault]


class Backup(TypedDict):
    """A backup that was written."""

    file: str
    size: int


class Recovered(TypedDict):
    """What was done, a sentence each."""

    done: list[str]


class Fetched(TypedDict):
    """What a fetch came to. `reason` is null where all came; `warning` is the archive's."""

    study_uid: str
    series_uid: str | None
    peer: str
    method: str | None
    state: Literal["FETCHED", "FAILED"]
    instances: int | None
    reason: str | None
    detail: str
    warning: str
    failed_uids: list[str]


class File(TypedDict):
    """A result in a folder."""

    kind: str
    file: str
    size: int
    summary: dict[str, Any]


class Segmented(TypedDict):
    """A series of a folder; `reason` says why it was refused, and is null where it was not."""

    series_uid: str
    folder: str | None
    reason: str | None
    detail: str
    results: list[File]
    findings: list[str]
    held: list[str]
    timings: dict[str, float]


class Version(TypedDict):
    """The program."""

    version: str


class Token(TypedDict):
    """A token of a user."""

    id: str
    expires_at: str


class User(TypedDict):
    """Who may sign in."""

    name: str
    role: str
    password: bool
    tokens: list[Token]


class UserAct(TypedDict):
    """What was done to a user; `token` is there once, where one was made."""

    name: str
    act: Literal["added", "removed", "changed", "made", "revoked"]
    role: NotRequired[str]
    token: NotRequired[str]


class Part(TypedDict):
    """A network of a model."""

    name: str
    structures: int
    archive: str | None
    trainer: str | None
    folder: str
    installed: bool
    sha256: dict[str, str]


class Model(TypedDict):
    """A model's card. `commissioned` is empty where it is, else why not."""

    id: str
    title: str
    version: str
    family: str
    task: str
    installed: bool
    commissioned: str
    demonstration: bool
    structures: list[str]
    spacing_mm: list[float]
    orientation: str
    modality: str
    normalisation: str
    requires: dict[str, Any]
    step_size: float
    zoom_order: int
    aggregation: str
    code_table: str
    licence: str
    citation: str
    intended_use: str
    limits: list[str]
    figures: dict[str, Any]
    radelement: list[str]
    source: str | None
    bytes: int
    weights_digest: str | None
    parts: list[Part]


class InstalledPart(TypedDict):
    """What became of one part of a model; not `new`: it was there, with the same files."""

    model: str
    part: str
    origin: str
    new: bool


class Verified(TypedDict):
    """Whether a model's files are those that were recorded."""

    model: str
    good: bool
    fault: str


class Commissioned(TypedDict):
    """An act of commissioning, and how the model agreed with the reference."""

    model: str
    how: str
    passed: bool
    weights_digest: str
    node_version: str
    at: str
    by: str
    agreement: dict[str, Any] | None


SHAPES: dict[str, Any] = {
    "status": Overview,
    "status --study": StudyEvents,
    "health": Health,
    "studies": list[Study],
    "jobs": list[Job],
    "deliveries": list[Delivery],
    "echo": Echo,
    "probe": Probe,
    "rules": list[Tried],
    "release": Act,
    "requeue": Act,
    "analyze": Act,
    "withdraw": Act,
    "acknowledge": Act,
    "quarantine list": Quarantine,
    "quarantine release": PutBack,
    "quarantine discard": Act,
    "segment": list[Segmented],
    "fetch": list[Fetched],
    "check": Check,
    "backup": Backup,
    "recover": Recovered,
    "version": Version,
    "models list": list[Model],
    "models show": Model,
    "models install": list[InstalledPart],
    "models import": list[InstalledPart],
    "models verify": list[Verified],
    "models commission": Commissioned,
    "users add": UserAct,
    "users remove": UserAct,
    "users passwd": UserAct,
    "users token": UserAct,
    "users list": list[User],
}
"""By command; the others write no facts: roles run, `conformance` and `schema` are documents."""
