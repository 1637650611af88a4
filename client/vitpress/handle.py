"""One job, followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vitpress import places
from vitpress.artifact import load
from vitpress.errors import JobFailedError, RatioError
from vitpress.evidence import Evidence
from vitpress.plan import Plan
from vitpress.report import Report, SweepReport
from vitpress.values import Artifact, Job, JobEvent, JobState

if TYPE_CHECKING:
    from torch import nn

    from vitpress.client import Client

FOLDER = "ratio-"  # of one model of a sweep, with its ratio behind


class JobHandle:
    """One job of one server. ``job`` is its last known value; the methods ask the server."""

    def __init__(self, client: Client, job: Job) -> None:
        self.client, self.job = client, job

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.job.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    def refresh(self) -> Job:
        """Ask the server for the job as it is now."""
        self.job = self.client.get(self.id)
        return self.job

    def events(self, *, after: str | None = None) -> Iterator[JobEvent]:
        """See ``Client.events``."""
        return self.client.events(self.id, after=after)

    def wait(self, *, timeout: float | None = None) -> Self:
        """Returns once the job succeeded. Raises ``JobFailedError`` if it failed or was cancelled."""
        self.job = self.client.wait(self.id, timeout=timeout)
        if self.job.state is not JobState.SUCCEEDED:
            raise JobFailedError(self.job)
        return self

    def cancel(self) -> Job:
        """See ``Client.cancel``."""
        self.job = self.client.cancel(self.id)
        return self.job

    def retry(self) -> Self:
        """See ``Client.retry``."""
        self.job = self.client.retry(self.id).job
        return self

    def clone(self, **changes: Any) -> JobHandle:
        """See ``Client.clone``."""
        return self.client.clone(self.id, **changes)

    def update(self, **changes: Any) -> Job:
        """See ``Client.update``."""
        self.job = self.client.update(self.id, **changes)
        return self.job

    def report(self, *, ratio: float | None = None) -> Report:
        """See ``Client.report``."""
        return self.client.report(self.id, ratio=ratio)

    def sweep_report(self) -> SweepReport:
        """See ``Client.sweep_report``."""
        return self.client.sweep_report(self.id)

    def evidence(self, *, ratio: float | None = None) -> Evidence:
        """See ``Client.evidence``."""
        return self.client.evidence(self.id, ratio=ratio)

    def plan(self, *, ratio: float | None = None) -> Plan:
        """See ``Client.plan``."""
        return self.client.plan(self.id, ratio=ratio)

    def artifacts(self) -> tuple[Artifact, ...]:
        """See ``Client.artifacts``."""
        return self.client.artifacts(self.id)

    def download(self, directory: str | Path, *, exports: bool = True, ratio: float | None = None) -> Path:
        """See ``Client.download``."""
        return self.client.download(self.id, directory, exports=exports, ratio=ratio)

    def load(self, directory: str | Path | None = None, *, ratio: float | None = None) -> nn.Module:
        """The compressed model, on the CPU, in evaluation mode; needs ``vitpress[torch]``.

        ``ratio``: which of a sweep's models. Its files are kept in ``directory``, by default in
        ``~/.cache/vitpress/<job id>`` (or under ``$XDG_CACHE_HOME``). Raises ``RatioError`` for a sweep and no ratio.
        """
        if ratio is None and (ratios := self.job.recipe.get("target_ratios")):
            raise RatioError(which(ratios))
        kept = directory or places.cache() / self.id / ("" if ratio is None else f"{FOLDER}{float(ratio)}")
        return load(self.download(kept, exports=False, ratio=ratio))


def which(ratios: Sequence[float]) -> str:
    """What to tell who asked for a ratio that the job has no model for."""
    if not ratios:
        return "the job has one model, and needs no ratio"
    return f"the job has a model for each of {', '.join(map(str, sorted(ratios)))}"
