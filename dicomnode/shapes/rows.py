"""Facts of the ledger as `--json` has them: the rows of `status` and of the lists."""

from __future__ import annotations

from typing import Any, TypedDict


class Node(TypedDict):
    """A node that shares the ledger."""

    id: str
    ae_title: str
    started_at: str


class Gpu(TypedDict):
    """A GPU as the role `work` saw it last; its memory in bytes, by whatever process."""

    index: int
    name: str
    total_bytes: int
    used_bytes: int


class Role(TypedDict):
    """A role that runs, or gave a sign of life not long ago."""

    id: str
    node_id: str
    role: str
    pid: int
    doing: str
    gpus: list[Gpu]
    started_at: str
    seen_at: str
    silent: bool


class Counts(TypedDict):
    """How many there are, by state."""

    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    instances: int


class Event(TypedDict):
    """Something that happened; its code stands in operating.md."""

    id: int
    at: str
    level: str
    code: str
    detail: str
    study_uid: str | None
    series_uid: str | None
    job_id: int | None
    delivery_id: int | None


class Destination(TypedDict):
    """How a destination fares."""

    name: str
    waiting: int
    oldest: str | None
    failures: int
    failing_since: str | None
    retry_at: str | None
    reason: str | None
    detail: str
    seen_at: str | None
    paused_at: str | None
    paused_by: str


class Stranger(TypedDict):
    """A requestor that was refused for who it is, and what would let it in."""

    calling_ae: str
    called_ae: str
    address: str
    certificate_sha256: str | None
    code: str
    why: str
    count: int
    first_at: str
    last_at: str
    remedy: str


class Study(TypedDict):
    """A study."""

    study_uid: str
    state: str
    hold_reason: str | None
    first_at: str
    last_at: str
    due_at: str | None
    look_at: str | None
    closed_at: str | None
    closed_by: str | None
    instances: int


class Choice(TypedDict):
    """A series, and what was decided on it."""

    series_uid: str
    modality: str
    series_number: int | None
    description: str
    chosen_model: str | None
    choice_code: str | None
    choice: str
    summary: Any
    instances: int


class Series(Choice):
    """A series in the ledger."""

    study_uid: str
    generation: int


class Job(TypedDict):
    """An analysis: one series, one model, one generation."""

    id: int
    study_uid: str
    series_uid: str
    model_id: str
    generation: int
    state: str
    attempt: int
    failures: int
    shortages: list[str]
    stage: str | None
    progress: float | None
    reason: str | None
    detail: str
    findings: list[str] | None
    coded: list[Any] | None
    timings: dict[str, float] | None
    created_at: str
    analysed_at: str | None
    updated_at: str
    due_at: str


class Delivery(TypedDict):
    """One result to one destination."""

    id: int
    job_id: int
    destination: str
    in_place_of: str | None
    state: str
    attempt: int
    last_status: int | None
    reason: str | None
    detail: str
    due_at: str
    updated_at: str
    kind: str
    sop_instance_uid: str
    withdraw_reason: str | None
    withdrawn_by: str | None
    size: int
    summary: dict[str, Any]


class Fetch(TypedDict):
    """A study that was asked for from an archive."""

    id: int
    node_id: str
    study_uid: str
    series_uid: str | None
    peer: str | None
    method: str | None
    state: str
    requested_by: str
    expected: int | None
    remaining: int | None
    completed: int
    failed: int
    warning: int
    reason: str | None
    detail: str
    requested_at: str
    seen_at: str
    ended_at: str | None
    silent: bool


class Association(TypedDict):
    """An association that a peer opened."""

    id: int
    node_id: str
    calling_ae: str
    called_ae: str
    address: str
    opened_at: str
    closed_at: str | None
    outcome: str | None
    instances: int
    bytes: int


class AuditSink(TypedDict):
    """A place that the audit trail is kept at: `file` or `syslog`."""

    name: str
    failures: int
    failing_since: str | None
    retry_at: str | None
    seen_at: str | None
    detail: str


class AuditTrail(TypedDict):
    """How the audit trail fares; `level` is good or bad."""

    level: str
    short: str
    says: str
    waiting: int
    oldest: str | None
    oldest_seconds: float
    sinks: list[AuditSink]


class Overview(TypedDict):
    """What came, what went, what is stuck and why; lists newest first."""

    now: str
    nodes: list[Node]
    roles: list[Role]
    counts: Counts
    attention: list[Event]
    destinations: list[Destination]
    audit: AuditTrail | None
    strangers: list[Stranger]
    studies: list[Study]
    series: list[Series]
    jobs: list[Job]
    deliveries: list[Delivery]
    fetches: list[Fetch]
    associations: list[Association]


class StudyEvents(TypedDict):
    """One study: its series by number, its events oldest first."""

    study_uid: str
    series: list[Series]
    events: list[Event]
