"""Whether the process lives, and whether what it needs answers."""

from collections.abc import Callable
from functools import partial

import anyio
import anyio.to_thread
import structlog
from fastapi import APIRouter
from sqlalchemy import Engine

from api.errors import ServiceNotReadyError, responses
from api.resources import Found, Resources
from api.schemas import Health, Readiness
from store import jobs, queue
from store.owners import LOCAL
from store.session import transaction

PROBE_SECONDS = 3

log = structlog.get_logger(__name__)
router = APIRouter(tags=["health"])


@router.get("/healthz", name="get_health", summary="Is the process alive?")
async def get() -> Health:
    """Asks nothing else, not even a thread."""
    return Health(status="ok")


@router.get(
    "/readyz",
    name="get_readiness",
    summary="Can it serve?",
    responses=responses(ServiceNotReadyError),
)
async def get_readiness(found: Found) -> Readiness:
    """Reads a job, greets the broker and lists a blob, each within three seconds."""
    probes: dict[str, Callable[[], object]] = {
        "database": partial(_read_a_job, found.engine),
        "broker": partial(queue.ping, found.settings),
        "blobs": found.blobs.ping,
    }
    checks = dict.fromkeys(probes, "timed out")

    async def check(name: str, probe: Callable[[], object]) -> None:
        with anyio.move_on_after(PROBE_SECONDS):
            checks[name] = await _outcome(found, name, probe)

    async with anyio.create_task_group() as group:
        for name, probe in probes.items():
            group.start_soon(check, name, probe)
    if set(checks.values()) != {"ok"}:
        raise ServiceNotReadyError(checks)
    return Readiness(status="ok", checks=dict.fromkeys(checks, "ok"))


async def _outcome(found: Resources, name: str, probe: Callable[[], object]) -> str:
    try:
        await anyio.to_thread.run_sync(probe, limiter=found.probes, abandon_on_cancel=True)
    except Exception as error:  # whatever a driver raises, it means the same here
        log.warning("not ready", service=name, error=repr(error))
        return "unreachable"
    return "ok"


def _read_a_job(engine: Engine) -> None:
    with transaction(engine, read_only=True) as session:
        jobs.list_(session, LOCAL.owner_id, limit=1)
