"""The stage that fine-tunes: its name, what it says of its progress, and the checkpoints that it leaves."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE = ("load", "calibrate", "compress", "evaluate", "export", "upload")
AFTER = ("load", "calibrate", "compress", "finetune", "evaluate", "export", "upload")


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("stage_loss", sa.Double()))
        jobs.add_column(sa.Column("stage_eta_seconds", sa.Double()))
        jobs.add_column(sa.Column("checkpoint", sa.JSON()))
        jobs.drop_constraint(op.f("ck_jobs_stage"), type_="check")
        jobs.create_check_constraint(op.f("ck_jobs_stage"), _in(AFTER))
    there = sa.text("checkpoint IS NOT NULL")
    op.create_index("ix_jobs_checkpointed", "jobs", ["state"], postgresql_where=there, sqlite_where=there)
    with op.batch_alter_table("events", table_kwargs={"sqlite_autoincrement": True}) as events:
        events.add_column(sa.Column("loss", sa.Double()))
        events.add_column(sa.Column("eta_seconds", sa.Double()))
        events.drop_constraint(op.f("ck_events_stage"), type_="check")
        events.create_check_constraint(op.f("ck_events_stage"), _in(AFTER))


def downgrade() -> None:
    op.drop_index("ix_jobs_checkpointed", "jobs")
    for table in ("jobs", "events"):
        op.execute(f"UPDATE {table} SET stage = 'compress' WHERE stage = 'finetune'")  # noqa: S608 - two known names
    with op.batch_alter_table("events", table_kwargs={"sqlite_autoincrement": True}) as events:
        events.drop_constraint(op.f("ck_events_stage"), type_="check")
        events.create_check_constraint(op.f("ck_events_stage"), _in(BEFORE))
        events.drop_column("eta_seconds")
        events.drop_column("loss")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("ck_jobs_stage"), type_="check")
        jobs.create_check_constraint(op.f("ck_jobs_stage"), _in(BEFORE))
        jobs.drop_column("checkpoint")
        jobs.drop_column("stage_eta_seconds")
        jobs.drop_column("stage_loss")


def _in(stages: tuple[str, ...]) -> str:
    return f"stage IN ({', '.join(repr(stage) for stage in stages)})"
