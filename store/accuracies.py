"""What an owner's jobs have measured of the models that they began with."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.states import JobKind, JobState
from store.tables import Job

LATEST = 500  # jobs that are looked at
_TOP1 = ("before", "accuracy", "top1", "value")


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Of a model before it is compressed. ``top1``: the fraction of the images of ``dataset`` that it names right."""

    dataset: str
    top1: float


def measured(session: Session, owner_id: str) -> dict[str, Accuracy]:
    """By the model's name, what the last job of the owner's found before it compressed it."""
    latest = (
        select(Job.id)
        .where(Job.owner_id == owner_id, Job.kind == JobKind.COMPRESS, Job.state == JobState.SUCCEEDED)
        .order_by(Job.id.desc())
        .limit(LATEST)
    )
    top1 = func.coalesce(Job.report[_TOP1].as_float(), Job.report[("reports", 0, *_TOP1)].as_float())
    rows = session.execute(
        select(Job.model, Job.dataset, top1.label("top1")).where(Job.id.in_(latest)).order_by(Job.id)
    )
    return {row.model: Accuracy(row.dataset, row.top1) for row in rows if row.top1 is not None}
