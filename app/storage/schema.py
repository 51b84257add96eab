"""The tables, as they are in this release. What changes here needs a step in `migrations.py`."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

__all__ = [
    "APPEND_ONLY",
    "activations",
    "calibrations",
    "decisions",
    "detections",
    "ended_sessions",
    "metadata",
    "quarantine",
    "reviews",
    "schema_version",
    "secrets",
    "sketches",
    "traffic",
]


class Digest(TypeDecorator[str]):
    """A SHA-256: 64 hexadecimal digits in Python, 32 bytes in the database."""

    impl = LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else bytes(value).hex()


Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite's INTEGER PRIMARY KEY is the row's own number

metadata = MetaData()
schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))
calibrations = Table(
    "calibrations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # the order of creation
    Column("id", String, unique=True, nullable=False),
    Column("created_at", String, nullable=False),
    Column("classifier_digest", String, nullable=False),
    Column("model_name", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("images", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("report", Text, nullable=False),
)
activations = Table(
    "activations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("calibration_id", String, ForeignKey("calibrations.id"), nullable=False),
    Column("at", String, nullable=False),
    Column("reason", String, nullable=False),
)
decisions = Table(
    "decisions",
    metadata,
    Column("id", Number, primary_key=True, autoincrement=False),  # sorts by time: see ids.py
    Column("at", Float, nullable=False),  # Unix seconds
    Column("request_id", String, nullable=False),
    Column("place", Integer, nullable=False),  # of the image in its request, from 0
    Column("image_sha256", Digest, nullable=False),  # of the bytes as received
    Column("label", Integer, nullable=False),  # the classifier's, whether or not it left
    Column("confidence", Float),
    Column("verdict", String, nullable=False),
    Column("mode", String, nullable=False),
    Column("calibration_id", String),
    Index("decisions_by_verdict", "verdict", "id"),
    Index("decisions_by_label", "label", "id"),
)
detections = Table(
    "detections",
    metadata,
    Column("decision_id", Number, primary_key=True, autoincrement=False),
    Column("detector", String, primary_key=True),
    Column("score", Float),  # null: not a number, never cleared
    Column("p_value", Float),
    Column("threshold", Float),  # null: no score is suspicious
    Column("suspicious", Boolean, nullable=False),
    Column("exact", Boolean, nullable=False),  # false: the score is a bound
    sqlite_with_rowid=False,  # rows lie in the order of their key: a span of time is read in one go
)
traffic = Table(
    "traffic",
    metadata,
    Column("minute", Number, primary_key=True, autoincrement=False),  # Unix minutes
    Column("verdict", String, primary_key=True),
    Column("images", Integer, nullable=False),
)
quarantine = Table(
    "quarantine",
    metadata,
    Column("sha256", Digest, primary_key=True),
    Column("decision_id", Number, nullable=False, unique=True),  # the last decision on this image
    Column("stored_at", Float, nullable=False),
    Column("size", Integer, nullable=False),  # bytes
    Column("media_type", String, nullable=False),
    Column("times", Integer, nullable=False),  # how often it came
    Column("mark", String),  # trigger, false_alarm; null: not reviewed
    Column("marked_by", String),
    Column("marked_at", Float),
)
reviews = Table(
    "reviews",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("sha256", Digest, nullable=False),
    Column("mark", String),  # null: a mark was taken back
    Column("by", String, nullable=False),
    Column("at", Float, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),  # random; the same for every gateway
)
ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("id", String, primary_key=True),  # of a session of the console
    Column("expires", Float, nullable=False),  # Unix seconds
)

sketches = Table(
    "sketches",
    metadata,
    Column("replica", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("subject", String, nullable=False),  # what it is of: those of one subject can be merged
    Column("at", Float, nullable=False),  # Unix seconds
    Column("images", Number, nullable=False),  # that it is of
    Column("content", LargeBinary, nullable=False),
)

APPEND_ONLY = ("calibrations", "activations", "reviews")
