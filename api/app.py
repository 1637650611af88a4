"""The HTTP API as one application: what lives with the server, what every request passes, and where the routes are.

This process never imports torch or timm. ``api.serve`` runs it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import TypedDict

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI

from api import (
    artifacts,
    compare,
    datasets,
    errors,
    events,
    evidence,
    health,
    idempotency,
    jobs,
    keys,
    metrics,
    models,
    openapi,
    owners,
    plans,
    problems,
    project_events,
    projects,
    queue,
    shutdown,
    storage,
    submissions,
    uploads,
    webhooks,
    whoami,
    workers,
)
from api.acceptance import accept, ring_for
from api.dashboard import routes as dashboard
from api.downloads import Downloads
from api.gathering import Gathered
from api.identity import reader
from api.joining import Joined
from api.middleware import BodyLimit, HeadAsGet, RequestId, TusVersion
from api.observe import HttpMeasures, Observed
from api.polls import Polls
from api.receiving import Writers
from api.resources import Resources
from api.throttle import Throttle
from store.blobs import Blobs
from store.errors import InvalidKeyError, NotLocalError, ScopeError
from store.looks import Looks
from store.s3_blobs import QUICK
from store.session import engine
from store.settings import Settings, get_settings


class State(TypedDict):
    """What the lifespan puts into the ``state`` of every request."""

    resources: Resources


def create_app(settings: Settings | None = None) -> FastAPI:
    """``settings``: None for those of the environment. No service is needed before the server starts."""
    settings = settings or get_settings()
    measures, looks = HttpMeasures(), Looks()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        database = engine(settings)
        blobs = Blobs.open(settings, QUICK)
        gathered = Gathered(database)
        accepting = Joined(database, accept, partial(ring_for, settings))
        with shutdown.announced() as stopping:
            yield {
                "resources": Resources(
                    settings=settings,
                    engine=database,
                    blobs=blobs,
                    downloads=Downloads(blobs),
                    watchers=CapacityLimiter(8),
                    probes=CapacityLimiter(6),
                    throttle=Throttle(),
                    measures=measures,
                    writers=Writers(),
                    stopping=stopping,
                    gathered=gathered,
                    looks=looks,
                    accepting=accepting,
                )
            }
        await accepting.close()
        await gathered.close()
        database.dispose()

    app = FastAPI(
        title="vitpress",
        version=version("vitpress-server"),
        description="Compression of Vision Transformers as a service. Errors are RFC 9457 problem details.",
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # api.observe has its own
        docs_url=None,  # FastAPI's own load scripts from elsewhere; the dashboard has a page
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        responses=errors.responses(statuses=[HTTPStatus.INTERNAL_SERVER_ERROR]),
    )
    app.add_middleware(BodyLimit)
    app.add_middleware(Polls, looks=looks)
    app.add_middleware(Observed, measures=measures)
    app.add_middleware(HeadAsGet)
    app.add_middleware(TusVersion)
    app.add_middleware(RequestId)  # the outermost
    problems.install(app)
    idempotency.install(app)
    openapi.install(app)
    may_answer = errors.responses(
        errors.InvalidRequestError,
        InvalidKeyError,
        errors.TooManyFailuresError,
        ScopeError,
        NotLocalError,
        errors.OtherSiteError,
        *errors.DATABASE_UNREACHABLE,
    )
    for resource in (
        jobs,  # the first that are tried: looking at a job is what most requests do
        submissions,
        compare,
        events,
        artifacts,
        evidence,
        plans,
        models,
        datasets,
        keys,
        owners,
        projects,
        project_events,
        webhooks,
        whoami,
        queue,
        workers,
        storage,
        uploads,
    ):
        app.include_router(resource.router, responses=may_answer, dependencies=[Depends(reader)])
    app.include_router(health.router)
    app.include_router(metrics.router)
    dashboard.install(app)
    return app
