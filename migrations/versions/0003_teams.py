"""Owners, their projects and keys; what they bring; what they are told; what workers say of themselves.

Jobs that are there become those of the owner ``local``, whom a server without keys works for.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LOCAL = "00000000-0000-7000-8000-000000000000"  # id of the owner, and of its project
KINDS = ("compress", "check_model", "check_dataset")
WAITING = sa.text("state = 'queued'")
CHECK_STATES = ("checking", "ready", "rejected")


def upgrade() -> None:
    _owners()
    _jobs()
    _brought()
    _uploads()
    _signals()
    op.create_table(
        "idempotent_requests",
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.JSON()),
        sa.Column("body", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        _owned("idempotent_requests", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "key", name=op.f("pk_idempotent_requests")),
    )
    op.create_index(op.f("ix_idempotent_requests_created_at"), "idempotent_requests", ["created_at"])
    op.create_table(
        "trash",
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_trash")),
    )
    op.execute("DELETE FROM workers")  # each signs on again at its next sweep
    with op.batch_alter_table("workers") as workers:
        workers.add_column(sa.Column("tags", sa.JSON(), nullable=False))
        workers.add_column(sa.Column("device", sa.Text(), nullable=False))
        workers.add_column(sa.Column("memory_bytes", sa.BigInteger()))
        workers.add_column(sa.Column("memory_used_bytes", sa.BigInteger()))
        workers.add_column(sa.Column("draining", sa.Boolean(), nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("workers") as workers:
        for column in ("draining", "memory_used_bytes", "memory_bytes", "device", "tags"):
            workers.drop_column(column)
    for table in ("trash", "idempotent_requests", "deliveries", "webhooks", "uploads", "own_datasets", "own_models"):
        op.drop_table(table)
    op.drop_index("ix_events_xid_id", "events")
    op.drop_column("events", "xid")
    op.execute("DELETE FROM jobs WHERE kind <> 'compress'")
    for name in ("owner_id_kind_id", "owner_id_state", "project_id_id", "subject_id", "finished_at", "waiting"):
        op.drop_index(f"ix_jobs_{name}", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        for referred in ("owner_id", "project_id"):
            jobs.drop_constraint(op.f(f"fk_jobs_{referred}"), type_="foreignkey")
        for added in _job_columns():
            jobs.drop_column(added.name)
    for table in ("api_keys", "projects", "owners"):
        op.drop_table(table)


def _owners() -> None:
    owners = op.create_table(
        "owners",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("max_running", sa.Integer()),
        sa.Column("max_daily", sa.Integer()),
        sa.Column("max_bytes", sa.BigInteger()),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("deleted_submissions", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_owners")),
        sa.UniqueConstraint("name", name=op.f("uq_owners_name")),
    )
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        _owned("projects", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("owner_id", "name", name=op.f("uq_projects_owner_id_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        _owned("api_keys", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
    op.create_index(op.f("ix_api_keys_owner_id"), "api_keys", ["owner_id"])
    created_at = datetime.now(UTC)
    op.bulk_insert(owners, [{"id": LOCAL, "name": "local", "created_at": created_at}])
    op.bulk_insert(projects, [{"id": LOCAL, "owner_id": LOCAL, "name": "default", "created_at": created_at}])


def _job_columns() -> list[sa.Column[object]]:
    """Those without which a row cannot be have what the rows there are get."""
    return [
        sa.Column("owner_id", sa.String(36), nullable=False, server_default=LOCAL),
        sa.Column("project_id", sa.String(36), nullable=False, server_default=LOCAL),
        sa.Column("kind", sa.String(16), nullable=False, server_default="compress"),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("subject_id", sa.String(36)),
        sa.Column("created_by", sa.String(36)),
        sa.Column("request_id", sa.Text()),
        sa.Column("traceparent", sa.Text()),
        sa.Column("notes", sa.Text()),
        sa.Column("device_tag", sa.String(64)),
        sa.Column("memory_bytes", sa.BigInteger()),
        sa.Column("artifacts_deleted_at", sa.DateTime(timezone=True)),
    ]


def _jobs() -> None:
    with op.batch_alter_table("jobs") as jobs:
        for column in _job_columns():
            jobs.add_column(column)
    with op.batch_alter_table("jobs") as jobs:
        for name in ("owner_id", "project_id", "kind", "revision"):
            jobs.alter_column(name, server_default=None)
        jobs.create_foreign_key(op.f("fk_jobs_owner_id"), "owners", ["owner_id"], ["id"])
        jobs.create_foreign_key(op.f("fk_jobs_project_id"), "projects", ["project_id"], ["id"])
        jobs.create_check_constraint(op.f("ck_jobs_kind"), f"kind IN ({', '.join(map(repr, KINDS))})")
    op.create_index("ix_jobs_owner_id_kind_id", "jobs", ["owner_id", "kind", "id"])
    op.create_index("ix_jobs_owner_id_state", "jobs", ["owner_id", "state"])
    op.create_index("ix_jobs_project_id_id", "jobs", ["project_id", "id"])
    op.create_index("ix_jobs_subject_id", "jobs", ["subject_id"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])
    op.create_index(
        "ix_jobs_waiting",
        "jobs",
        ["owner_id", "queue", sa.text("priority DESC"), "id", "device_tag", "memory_bytes"],
        postgresql_where=WAITING,
        sqlite_where=WAITING,
    )


def _brought() -> None:
    """Models and datasets."""

    def common(table: str) -> list[sa.schema.SchemaItem]:
        return [
            sa.Column("id", sa.String(36), nullable=False),
            sa.Column("owner_id", sa.String(36), nullable=False),
            sa.Column("name", sa.Text(), nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("state", _text(*CHECK_STATES, name=f"ck_{table}_state"), nullable=False),
            sa.Column("error_code", sa.String(64)),
            sa.Column("error_message", sa.Text()),
            sa.Column("size", sa.BigInteger(), nullable=False),
            sa.Column("sha256", sa.String(64)),
            sa.Column("blob_key", sa.Text()),
            _owned(table),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
            sa.UniqueConstraint("owner_id", "name", name=op.f(f"uq_{table}_owner_id_name")),
        ]

    op.create_table(
        "own_models",
        *common("own_models"),
        sa.Column("details", sa.JSON()),
        sa.Column("hub_id", sa.Text()),
        sa.Column("architecture", sa.Text(), nullable=False),
        sa.Column("kwargs", sa.JSON(), nullable=False),
        sa.Column("config", sa.JSON()),
        sa.Column("shape", sa.JSON()),
        sa.Column("parameters", sa.BigInteger()),
        sa.Column("macs", sa.BigInteger()),
    )
    op.create_table(
        "own_datasets",
        *common("own_datasets"),
        sa.Column("directory", sa.Text()),
        sa.Column("report", sa.JSON()),
    )


def _uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _owned("uploads"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_owner_id"), "uploads", ["owner_id"])


def _signals() -> None:
    op.add_column("events", sa.Column("xid", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_events_xid_id", "events", ["xid", "id"])
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("owner_id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(36)),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True)),
        _owned("webhooks"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_webhooks_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(op.f("ix_webhooks_owner_id"), "webhooks", ["owner_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("webhook_id", sa.String(36), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True)),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_webhook_id_id", "deliveries", ["webhook_id", "id"])
    op.create_index("ix_deliveries_next_attempt_at", "deliveries", ["next_attempt_at"])


def _owned(table: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["owner_id"], ["owners.id"], name=op.f(f"fk_{table}_owner_id"), ondelete=ondelete)


def _text(*values: str, name: str) -> sa.Enum:
    """Text under a named CHECK."""
    return sa.Enum(*values, name=op.f(name), native_enum=False, create_constraint=True, length=16)
