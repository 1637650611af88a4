"""How an upload becomes an owner's model or dataset: its bytes become a blob, and a check decides about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from api.errors import checked
from api.idempotency import OneRequest
from api.resources import Resources
from store import checks, owners, trash, uploads
from store.blobs import Stored
from store.errors import DatasetExistsError, ModelExistsError
from store.queue import ring
from store.session import transaction
from store.states import JobKind
from store.values import Identity


@dataclass(frozen=True)
class Kept:
    """An upload whose blob is there. ``prefix``: under which all blobs are of what it becomes."""

    upload_id: str
    file: Path
    prefix: str
    stored: Stored


def keep(
    upload_id: str | None,
    owner_id: str,
    found: Resources,
    *,
    prefix: str,
    key: str,
    names: Callable[[Session, str], list[str]],
    taken: ModelExistsError | DatasetExistsError,
) -> Kept | None:
    """Puts the upload's file as a blob, which may take minutes: before the transaction, which others wait for. Raises
    ``taken`` where its name is one of the owner's ``names``. None where there is no upload.

    The blob is trash until that transaction says otherwise: should there be none, the sweeper deletes it.
    """
    if upload_id is None:
        return None
    with transaction(found.engine) as session:
        [file] = checked(lambda: uploads.complete(session, found.settings, owner_id, upload_id))
        if taken.name in names(session, owner_id):
            raise taken
        trash.throw(session, prefix)
    return Kept(upload_id, file, prefix, found.blobs.put_file(key, file))


@contextmanager
def to_be_checked(
    kind: JobKind, subject_id: str, kept: Kept | None, asking: Identity, once: OneRequest, found: Resources
) -> Iterator[Session]:
    """The transaction in which the row of ``subject_id`` is made. The upload is used up by it, and a check rung for."""
    with once.transaction() as session:
        if kept is not None:
            checked(lambda: uploads.take(session, found.settings, asking.owner_id, kept.upload_id))
            trash.forget(session, [kept.prefix])
        yield session
        job_id = checks.enqueue(
            session,
            owners.place(session, asking.owner_id),
            kind,
            subject_id,
            created_by=asking.key_id,
            max_attempts=found.settings.max_attempts,
        )
    if kept is not None:
        kept.file.unlink(missing_ok=True)
    ring(found.settings, job_id, checks.QUEUE)
