"""The tables. Times are UTC. Patients stand here as keyed hashes only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

UID = String(64)
DIGEST = String(64)
CODE = String(64)
Identity = BigInteger().with_variant(Integer(), "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which has no time zones, keeps it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a time zone cannot go into the ledger")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _key() -> Column[int]:
    return Column("id", Identity, primary_key=True, autoincrement=True)


def _to(table: str, *, nullable: bool = False) -> Column[int]:
    return Column(f"{table}_id", Identity, ForeignKey(f"{table}.id"), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=nullable)


def _text(name: str, kind: Any = Text, *, default: str | None = "") -> Column[str]:
    return Column(name, kind, nullable=default is None, default=default)


node = Table(
    "node",
    metadata,
    Column("id", String(64), primary_key=True),
    _text("ae_title", String(16)),
    _text("patient_key_id", String(16)),
    Column("claims", BigInteger, nullable=False, default=0),
    _time("started_at"),
)

association = Table(
    "association",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    _text("calling_ae", String(16)),
    _text("called_ae", String(16)),
    _text("address", String(64)),
    _time("opened_at"),
    _time("closed_at", nullable=True),
    _text("outcome", CODE, default=None),
    Column("instances", Integer, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Index("ix_association_closed_at", "closed_at"),
)

study = Table(
    "study",
    metadata,
    _key(),
    Column("study_uid", UID, nullable=False, unique=True),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("patient_key", DIGEST, nullable=False),
    Column("identity_digest", DIGEST, nullable=False),
    Column("identity_revision", Integer, nullable=False, default=0),
    Column("state", CODE, nullable=False),
    _text("hold_reason", CODE, default=None),
    _time("first_at"),
    _time("last_at"),
    _time("study_at", nullable=True),
    _time("fetched_at", nullable=True),
    _time("opened_at"),
    _time("due_at", nullable=True),
    _time("look_at", nullable=True),
    _time("closed_at", nullable=True),
    _text("closed_by", CODE, default=None),
    _time("purged_at", nullable=True),
    Index("ix_study_state_look_at", "state", "look_at"),
    Index("ix_study_purged_at_last_at", "purged_at", "last_at"),
    Index("ix_study_last_at", "last_at"),
    Index("ix_study_state_last_at", "state", "last_at"),
)

series = Table(
    "series",
    metadata,
    _key(),
    _to("study"),
    Column("series_uid", UID, nullable=False),
    _text("modality", String(16)),
    Column("series_number", BigInteger),
    _text("description"),
    _text("body_part"),
    Column("slice_thickness_mm", Float),
    _text("requested_priority", String(16)),
    Column("generation", Integer, nullable=False, default=1),
    _text("chosen_model", CODE, default=None),
    _text("choice_code", CODE, default=None),
    _text("choice"),
    Column("summary", JSON),
    _time("last_at"),
    UniqueConstraint("study_id", "series_uid"),
)

instance = Table(
    "instance",
    metadata,
    _key(),
    _to("series"),
    _to("association", nullable=True),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("sop_instance_uid", UID, nullable=False, unique=True),
    Column("sop_class_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("pixel_digest", DIGEST, nullable=False),
    Column("geometry_digest", DIGEST, nullable=False),
    Column("identity_digest", DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("counts", Integer, nullable=False, default=1),
    _text("facts"),
    Column("place_mm", Float),
    Column("end_group", String(80)),
    Column("end_total", BigInteger),
    Column("end_number", BigInteger),
    _text("rejected", CODE, default=None),
    _time("received_at"),
    _time("purged_at", nullable=True),
    _time("promised_at", nullable=True),
    Index("ix_instance_series_id", "series_id"),
)

answer = Table(
    "answer",
    metadata,
    _key(),
    _to("study"),
    _text("peer", CODE),
    _time("first_at"),
    _time("last_at"),
    _time("asked_at"),
    Column("counts", JSON(none_as_null=True)),
    Index("ix_answer_study_id", "study_id"),
)

rejection = Table(
    "rejection",
    metadata,
    _key(),
    Column("sop_instance_uid", UID, nullable=False),
    Column("note_uid", UID, nullable=False),
    _text("code", CODE),
    _time("at"),
    UniqueConstraint("sop_instance_uid", "note_uid"),
)

job = Table(
    "job",
    metadata,
    _key(),
    _to("study"),
    _to("series"),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("model_id", CODE, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("identity_revision", Integer, nullable=False, default=0),
    _text("rule"),
    Column("destinations", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("monoenergetic", Integer, nullable=False, default=0),
    Column("by_hand", Integer, nullable=False, default=0),
    Column("urgency", Integer, nullable=False, default=1),
    Column("state", CODE, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
    Column("shortages", JSON, nullable=False, default=list),
    _time("due_at"),
    _time("lease_until", nullable=True),
    _text("worker", String(128), default=None),
    _text("stage", CODE, default=None),
    Column("progress", Float),
    _text("reason", CODE, default=None),
    _text("detail"),
    Column("findings", JSON),
    Column("coded", JSON),
    Column("timings", JSON),
    _text("label_map_path", Text, default=None),
    _text("label_map_digest", DIGEST, default=None),
    _time("created_at"),
    _time("analysed_at", nullable=True),
    _time("updated_at"),
    _time("late_at", nullable=True),
    _time("results_purged_at", nullable=True),
    UniqueConstraint("series_id", "model_id", "generation"),
    Index("ix_job_state_due_at", "state", "due_at"),
    Index("ix_job_results_purged_at_updated_at", "results_purged_at", "updated_at"),
    Index("ix_job_study_id", "study_id"),
    Index("ix_job_updated_at", "updated_at"),
)

result = Table(
    "result",
    metadata,
    _key(),
    _to("job"),
    Column("kind", CODE, nullable=False),
    Column("position", Integer, nullable=False),
    Column("sop_class_uid", UID, nullable=False),
    Column("sop_instance_uid", UID, nullable=False, unique=True),
    Column("series_uid", UID, nullable=False),
    Column("transfer_syntax_uid", UID, nullable=False),
    Column("path", Text, nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("summary", JSON, nullable=False),
    Column("refers_to", JSON, nullable=False, default=list),
    _time("withdraw_at", nullable=True),
    _text("withdraw_reason", CODE, default=None),
    _time("created_at"),
    UniqueConstraint("job_id", "position"),
)

commitment = Table(
    "commitment",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("destination", CODE, nullable=False),
    Column("transaction_uid", UID, nullable=False, unique=True),
    Column("state", CODE, nullable=False),
    Column("deliveries", JSON, nullable=False),
    _time("asked_at"),
    _time("due_at"),
    _time("answered_at", nullable=True),
    _text("reason", CODE, default=None),
    _text("detail"),
    Index("ix_commitment_state_due_at", "state", "due_at"),
)

promise = Table(
    "promise",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("peer", CODE, nullable=False),
    Column("transaction_uid", UID, nullable=False),
    Column("state", CODE, nullable=False),
    Column("references", JSON, nullable=False),
    _time("asked_at"),
    _time("due_at"),
    _time("answered_at", nullable=True),
    Column("attempt", Integer, nullable=False, default=0),
    _text("detail"),
    UniqueConstraint("node_id", "peer", "transaction_uid"),
    Index("ix_promise_state_due_at", "state", "due_at"),
)

delivery = Table(
    "delivery",
    metadata,
    _key(),
    _to("result"),
    _to("job"),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("destination", CODE, nullable=False),
    _text("in_place_of", CODE, default=None),
    Column("position", Integer, nullable=False),
    Column("state", CODE, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    _time("due_at"),
    Column("overridden", Integer, nullable=False, default=0),
    Column("last_status", Integer),
    _text("reason", CODE, default=None),
    _text("detail"),
    _time("arrived_at", nullable=True),
    _text("withdrawn_by", UID, default=None),
    _time("created_at"),
    _time("updated_at"),
    _time("late_at", nullable=True),
    _to("commitment", nullable=True),
    Column("commit_attempt", Integer, nullable=False, default=0),
    _time("commit_at", nullable=True),
    UniqueConstraint("result_id", "destination"),
    Index("ix_delivery_state_destination_due_at", "state", "destination", "due_at"),
    Index("ix_delivery_job_id", "job_id"),
    Index("ix_delivery_updated_at", "updated_at"),
)

destination = Table(
    "destination",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("name", CODE, nullable=False),
    Column("failures", Integer, nullable=False, default=0),
    _time("failing_since", nullable=True),
    _time("retry_at", nullable=True),
    _text("reason", CODE, default=None),
    _text("detail"),
    Column("last_delivery", Identity),
    _time("alarmed_at", nullable=True),
    _time("seen_at", nullable=True),
    _time("paused_at", nullable=True),
    _text("paused_by"),
    UniqueConstraint("node_id", "name"),
)

# "fetch" is a reserved word of PostgreSQL.
retrieval = Table(
    "retrieval",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("study_uid", UID, nullable=False),
    Column("series_uid", UID),
    Column("peer", CODE),
    Column("method", CODE),
    Column("state", CODE, nullable=False),
    _text("requested_by"),
    Column("expected", Integer),
    Column("remaining", Integer),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("warning", Integer, nullable=False, default=0),
    _text("reason", CODE, default=None),
    _text("detail"),
    _time("requested_at"),
    _time("seen_at"),
    _time("ended_at", nullable=True),
    Index("ix_retrieval_study_uid", "study_uid"),
    Index("ix_retrieval_state", "state"),
)

event = Table(
    "event",
    metadata,
    _key(),
    _time("at"),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("level", CODE, nullable=False),
    Column("code", CODE, nullable=False),
    _text("detail"),
    Column("count", Integer, nullable=False, default=1),
    _to("study", nullable=True),
    _to("series", nullable=True),
    _to("job", nullable=True),
    _to("delivery", nullable=True),
    _to("association", nullable=True),
    _time("resolved_at", nullable=True),
    Index("ix_event_level_resolved_at", "level", "resolved_at"),
    Index("ix_event_study_id", "study_id"),
)

stranger = Table(
    "stranger",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    _text("calling_ae", String(16)),
    _text("called_ae", String(16)),
    _text("address", String(64)),
    _text("certificate_sha256", DIGEST),
    Column("code", CODE, nullable=False),
    Column("count", Integer, nullable=False, default=1),
    _time("first_at"),
    _time("last_at"),
    _time("acknowledged_at", nullable=True),
    UniqueConstraint(
        "node_id",
        "calling_ae",
        "called_ae",
        "address",
        "certificate_sha256",
        name="uq_stranger_who",
    ),
)

worker = Table(
    "worker",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("role", CODE, nullable=False),
    Column("pid", Integer, nullable=False),
    _text("doing"),
    Column("gpus", JSON, nullable=True),
    _time("started_at"),
    _time("seen_at"),
)

audit = Table(
    "audit",
    metadata,
    _key(),
    _time("at"),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("kind", CODE, nullable=False),
    _text("by"),
    _text("detail"),
    Column("facts", JSON(none_as_null=True)),
    Column("count", Integer, nullable=False, default=1),
    _to("study", nullable=True),
    _to("job", nullable=True),
    _to("delivery", nullable=True),
    Column("association_id", Identity),
    _time("filed_at", nullable=True),
    _time("sent_at", nullable=True),
    UniqueConstraint("kind", "association_id", "study_id"),
    Index("ix_audit_node_id_id", "node_id", "id"),
    # What one place has and another lacks may be much, for days, and is looked at every second.
    Index(
        "ix_audit_not_filed",
        "node_id",
        "id",
        sqlite_where=text("filed_at IS NULL"),
        postgresql_where=text("filed_at IS NULL"),
    ),
    Index(
        "ix_audit_not_sent",
        "node_id",
        "id",
        sqlite_where=text("sent_at IS NULL"),
        postgresql_where=text("sent_at IS NULL"),
    ),
)

audit_sink = Table(
    "audit_sink",
    metadata,
    _key(),
    Column("node_id", String(64), ForeignKey("node.id"), nullable=False),
    Column("name", CODE, nullable=False),
    Column("failures", Integer, nullable=False, default=0),
    _time("failing_since", nullable=True),
    _time("retry_at", nullable=True),
    _time("alarmed_at", nullable=True),
    _time("seen_at", nullable=True),
    _text("detail"),
    UniqueConstraint("node_id", "name"),
)
