"""Lists of jobs that take as long however many there are: an index for each filter, in the order of the list."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FILTERED = ("state", "model", "dataset")


def upgrade() -> None:
    for filtered in FILTERED:
        op.create_index(f"ix_jobs_owner_id_kind_{filtered}_id", "jobs", ["owner_id", "kind", filtered, "id"])
    op.drop_index("ix_jobs_owner_id_state", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_owner_id_state", "jobs", ["owner_id", "state"])
    for filtered in FILTERED:
        op.drop_index(f"ix_jobs_owner_id_kind_{filtered}_id", "jobs")
