"""What checks decide about: the models and datasets that owners bring. No function commits."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store import outbox
from store.brought import SCHEME
from store.outbox import Signal
from store.states import CheckState, JobKind, JobState
from store.tables import Job, OwnDataset, OwnModel
from store.values import JobError

_TABLES: dict[JobKind, type[OwnModel] | type[OwnDataset]] = {
    JobKind.CHECK_MODEL: OwnModel,
    JobKind.CHECK_DATASET: OwnDataset,
}
_SIGNALS = {
    (JobKind.CHECK_MODEL, CheckState.READY): Signal.MODEL_READY,
    (JobKind.CHECK_MODEL, CheckState.REJECTED): Signal.MODEL_REJECTED,
    (JobKind.CHECK_DATASET, CheckState.READY): Signal.DATASET_READY,
    (JobKind.CHECK_DATASET, CheckState.REJECTED): Signal.DATASET_REJECTED,
}


def decide(session: Session, kind: JobKind, subject_id: str, error: JobError | None, **found: Any) -> None:
    """Checking → ready, with what the check ``found``; with an ``error``, → rejected. Webhooks are told.

    Nothing happens where it is decided already, or deleted.
    """
    table = _TABLES[kind]
    state = CheckState.READY if error is None else CheckState.REJECTED
    reason = {} if error is None else {"error_code": error.code, "error_message": error.message}
    row = session.execute(
        update(table)
        .where(table.id == subject_id, table.state == CheckState.CHECKING)
        .values(state=state, **reason, **found)
        .returning(table.owner_id, table.name)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return
    told = None if error is None else {"code": error.code, "message": error.message}
    data = {"id": subject_id, "name": f"{SCHEME}{row.name}", "state": str(state), "error": told}
    outbox.announce(session, row.owner_id, None, _SIGNALS[kind, state], data)


def reject_unchecked(session: Session, rows: Sequence[Any]) -> None:
    """Of the jobs that ``store.transitions.write`` got back, those whose check itself failed: nobody can tell more."""
    failed = [row.id for row in rows if row.kind in _TABLES and row.state in {JobState.FAILED, JobState.CANCELLED}]
    if not failed:
        return
    columns = (Job.kind, Job.subject_id, Job.error_code, Job.error_message)
    for job in session.execute(select(*columns).where(Job.id.in_(failed))).all():
        error = JobError(job.error_code or "check_cancelled", job.error_message or "the check was cancelled")
        decide(session, job.kind, job.subject_id, error)
