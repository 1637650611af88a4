"""What lives as long as the server, and how routes get at it."""

import threading
from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy import Engine

from api.acceptance import Outcome, Submission
from api.downloads import Downloads
from api.gathering import Gathered
from api.joining import Joined
from api.observe import HttpMeasures
from api.receiving import Writers
from api.throttle import Throttle
from store.blobs import Blobs
from store.looks import Looks
from store.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What lives as long as the server. ``stopping`` is set when it is about to stop."""

    settings: Settings
    engine: Engine
    blobs: Blobs
    downloads: Downloads
    watchers: CapacityLimiter  # threads of the open event streams: however many, they leave the other routes theirs
    probes: CapacityLimiter  # threads of the readiness checks, which may hang
    throttle: Throttle  # of failed authentications
    measures: HttpMeasures
    writers: Writers
    stopping: threading.Event
    gathered: Gathered  # questions that all requests ask
    looks: Looks  # of ``gathered`` alone
    accepting: Joined[Submission, Outcome]


def found_by(request: Request) -> Resources:
    """As ``Found``, for dependencies: one more of those costs every request as much as looking its job up."""
    found: Resources = request.state.resources
    return found


async def _resources(request: Request) -> Resources:
    return found_by(request)


async def _settings(found: Annotated[Resources, Depends(_resources)]) -> Settings:
    return found.settings


async def _engine(found: Annotated[Resources, Depends(_resources)]) -> Engine:
    return found.engine


Found = Annotated[Resources, Depends(_resources)]
Config = Annotated[Settings, Depends(_settings)]
Database = Annotated[Engine, Depends(_engine)]
