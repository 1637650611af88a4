"""Jobs, their events and artifacts, and the workers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATES = ("queued", "running", "cancelling", "succeeded", "failed", "cancelled")
STAGES = ("load", "calibrate", "compress", "evaluate", "export", "upload")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("timeout_seconds", sa.Integer()),
        sa.Column("state", _text(*STATES, name="ck_jobs_state"), nullable=False),
        sa.Column("queue", _text("cpu", "gpu", name="ck_jobs_queue"), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("stage", _text(*STAGES, name="ck_jobs_stage")),
        sa.Column("stage_fraction", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text()),
        sa.Column("lease_token", sa.String(36)),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("worker", sa.Text()),
        sa.Column("rung_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("achieved", sa.JSON()),
        sa.Column("stage_seconds", sa.JSON()),
        sa.Column("plan", sa.JSON()),
        sa.Column("report", sa.JSON()),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (state NOT IN ('running', 'cancelling'))",
            name=op.f("ck_jobs_leased_while_running"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_state_queue", "jobs", ["state", "queue"])
    op.create_index("ix_jobs_lease_expires_at", "jobs", ["lease_expires_at"])
    op.create_index("ix_jobs_model_state_finished_at", "jobs", ["model", "state", "finished_at"])

    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("kind", _text("state", "stage", "progress", name="ck_events_kind"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", _text(*STATES, name="ck_events_state"), nullable=False),
        sa.Column("stage", _text(*STAGES, name="ck_events_stage")),
        sa.Column("fraction", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job_id_id", "events", ["job_id", "id"])

    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_artifacts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_artifacts")),
    )

    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queues", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )


def downgrade() -> None:
    for table in ("workers", "artifacts", "events", "jobs"):
        op.drop_table(table)


def _text(*values: str, name: str) -> sa.Enum:
    """Text under a named CHECK."""
    return sa.Enum(*values, name=op.f(name), native_enum=False, create_constraint=True, length=16)
