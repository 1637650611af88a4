"""What the rows of own models and own datasets have in common: each is its owner's, by a name that jobs write
``own:<name>``, and decided by a check. No function commits."""

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.errors import VitpressError
from store import trash
from store.states import UNFINISHED
from store.tables import Job, OwnDataset, OwnModel
from store.values import JobError

SCHEME = "own:"

Table = type[OwnModel] | type[OwnDataset]


def add(session: Session, row: OwnModel | OwnDataset, taken: VitpressError) -> None:
    """Raises ``taken`` where its owner has one of that name."""
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise taken from error


def names(session: Session, table: Table, owner_id: str) -> list[str]:
    """As jobs say them, in order."""
    query = select(table.name).where(table.owner_id == owner_id).order_by(table.name)
    return [f"{SCHEME}{name}" for name in session.scalars(query)]


def error_of(row: OwnModel | OwnDataset) -> JobError | None:
    """Why it was rejected."""
    return None if row.error_code is None else JobError(row.error_code, row.error_message or "")


def job_using(session: Session, owner_id: str, column: InstrumentedAttribute[str], name: str) -> str | None:
    """The id of one of its owner's jobs that names it in ``column``, and has not ended."""
    using = select(Job.id).where(Job.owner_id == owner_id, column == name, Job.state.in_(UNFINISHED)).limit(1)
    return session.scalar(using)


def remove(session: Session, table: Table, subject_id: str, prefix: str) -> None:
    """The row, and soon the blobs under ``prefix``."""
    session.execute(delete(table).where(table.id == subject_id))
    trash.throw(session, prefix)
