"""The workers: what each is and does; to drain one is an administrator's."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.errors import responses
from api.idempotency import Once
from api.identity import Admin, Reader
from api.resources import Database
from api.schemas_queue import Worker, WorkerList
from store import workers
from store.errors import WorkerNotFoundError
from store.session import transaction
from store.values import Identity, WorkerView

Name = Annotated[str, Path(description="As the list of workers has it", max_length=400)]

router = APIRouter(prefix="/v1/workers", tags=["workers"])


@router.get("", name="list_workers", summary="List workers")
def list_(asking: Reader, engine: Database) -> WorkerList:
    """Those heard of within a day, by name. One that is alive is heard of every few seconds."""
    with transaction(engine, read_only=True) as session:
        return WorkerList(items=[_shown(worker, asking) for worker in workers.list_(session)])


@router.post("/{name}/drain", name="drain_worker", summary="Drain a worker", responses=responses(WorkerNotFoundError))
def drain(name: Name, asking: Admin, once: Once) -> Worker:
    """It finishes the job that it has, and takes no more: then it can be stopped without loss, or resumed."""
    with once.transaction() as session:
        return once.answered(_shown(workers.set_draining(session, name, True), asking))


@router.post(
    "/{name}/resume", name="resume_worker", summary="Let a worker take jobs", responses=responses(WorkerNotFoundError)
)
def resume(name: Name, asking: Admin, once: Once) -> Worker:
    """It looks for work within seconds."""
    with once.transaction() as session:
        return once.answered(_shown(workers.set_draining(session, name, False), asking))


def _shown(worker: WorkerView, asking: Identity) -> Worker:
    job_id, owner_id = worker.job or (None, None)
    own = job_id if owner_id == asking.owner_id else None
    seen = {name: getattr(worker, name) for name in Worker.model_fields if name not in {"busy", "running"}}
    return Worker.model_validate(seen | {"busy": job_id is not None, "running": own})
