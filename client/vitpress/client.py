"""The SDK: one method for each thing that the API can do, and ``JobHandle`` for following one job.

from vitpress import Client

model = Client().compress("sample:vit_fmnist", dataset="sample:fashion-mnist", target_ratio=0.5).wait().load()
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from vitpress import credentials, download
from vitpress.brought import Datasets, Models
from vitpress.errors import RatioError, WaitTimeoutError
from vitpress.evidence import Evidence
from vitpress.handle import FOLDER, JobHandle, which
from vitpress.plan import Plan
from vitpress.reading import member, pages, read
from vitpress.report import Comparison, Report, SweepReport
from vitpress.streaming import follow
from vitpress.team import Keys, Owners, Projects, Webhooks, Workers
from vitpress.team_values import Storage
from vitpress.transport import Retries, Transport
from vitpress.values import Artifact, Job, JobEvent, JobState, ProjectEvent

DEFAULT_URL = "http://127.0.0.1:8000"
EXPORT_SUFFIXES = (".onnx", ".pt2")
SOONEST_POLL, LATEST_POLL = 0.2, 5.0  # seconds


class Client:
    """A connection to one server; safe to share between threads, usable as a context manager.

    ``base_url`` defaults to ``$VITPRESS_URL``, then to ``http://127.0.0.1:8000``; ``api_key`` to ``$VITPRESS_API_KEY``,
    then to what ``vitpress login`` has kept for that server. ``timeout``, in seconds, bounds each wait for the server's
    next bytes. Around the jobs are ``models``, ``datasets``, ``keys``, ``owners``, ``projects``, ``workers`` and
    ``webhooks``.

    Every method raises ``ServerUnreachableError`` when there is no connection, ``ApiError`` (``UnauthorizedError``,
    ``NotFoundError``, ``ConflictError``, ``InvalidRequestError``) when the server refuses, and
    ``UnexpectedAnswerError`` when what answers is not vitpress. Requests are retried as ``retries`` says: each that
    makes something has a key of its own, by which the server makes it once.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: Retries | None = None,
    ) -> None:
        self.base_url = base_url or os.environ.get("VITPRESS_URL") or DEFAULT_URL
        key = api_key or credentials.key(self.base_url)
        self._http = Transport(self.base_url, timeout, retries or Retries(), key)
        self.keys, self.owners, self.projects = Keys(self._http), Owners(self._http), Projects(self._http)
        self.workers, self.webhooks = Workers(self._http), Webhooks(self._http)
        self.models, self.datasets = Models(self._http), Datasets(self._http)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A client used in a ``with`` does so by itself."""
        self._http.close()

    def compress(
        self,
        model: str,
        *,
        dataset: str | None = None,
        target_ratio: float | None = None,
        method: str = "fisher",
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        notes: str | None = None,
        project: str | None = None,
        priority: int | None = None,
        device: str | None = None,
        device_tag: str | None = None,
        timeout_seconds: int | None = None,
        **options: Any,
    ) -> JobHandle:
        """Submit a compression. ``target_ratio``: the fraction of all parameters to remove, in (0, 1).

        ``dataset``: None is what a sample was trained for; every other model needs one.

        In its place, ``options`` may have another goal: ``target_macs`` or ``target_latency`` (with ``latency_batch``),
        fractions to remove as well; ``max_error_increase``, relative, for the smallest model within; ``target_ratios``,
        for which see ``sweep``. The other members of the recipe are ``rank_budget``, ``prune_budget``,
        ``calibration_images``, ``seed``, ``finetune`` (``{}``, or ``{"epochs": 20}`` and the like), ``exports``
        (``["onnx"]`` and the like) and those of the method; None leaves one to the server's default.
        ``priority``, -10 to 10, is among your own jobs; ``device`` is ``any`` or ``gpu``, and ``device_tag`` one that a
        worker must have. ``timeout_seconds`` counts running time.

        Raises ``InvalidRequestError`` for an unknown model, dataset or option, or an unreachable target.
        """
        body = {
            "model": model,
            "dataset": dataset,
            "recipe": _recipe(method, target_ratio, options),
            "name": name,
            "labels": dict(labels) if labels else None,
            "notes": notes,
            "project": project,
            "priority": priority,
            "device": device,
            "device_tag": device_tag,
            "timeout_seconds": timeout_seconds,
        }
        given = {key: value for key, value in body.items() if value is not None}
        return JobHandle(self, read(Job, self._http.post("/v1/jobs", given)))

    def sweep(self, model: str, *, target_ratios: Sequence[float], **options: Any) -> JobHandle:
        """Submit one job for several ratios, 2 to 16 of them; ``options`` as those of ``compress``.

        ``sweep_report`` compares its models; ``report``, ``plan``, ``download`` and ``load`` take the ``ratio`` of one.
        """
        return self.compress(model, target_ratios=list(target_ratios), **options)

    def dry_run(self, model: str, *, target_ratio: float | None = None, method: str = "fisher", **options: Any) -> Plan:
        """The plan that a recipe would give, from the model's shapes alone: no data, no GPU, no job.

        Of a ``target_ratio`` or a ``target_macs``; raises ``InvalidRequestError`` for a goal that takes measuring.
        """
        body = {"model": model, "recipe": _recipe(method, target_ratio, options)}
        return read(Plan, member(self._http.post("/v1/plans", body), "plan"))

    def job(self, job_id: str) -> JobHandle:
        """Follow a job that is there already."""
        return JobHandle(self, self.get(job_id))

    def get(self, job_id: str) -> Job:
        """The job as it is now. Raises ``NotFoundError``."""
        return read(Job, self._http.get(_job(job_id)))

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        model: str | None = None,
        dataset: str | None = None,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        page: int = 50,
    ) -> Iterator[Job]:
        """The jobs, newest first, fetched ``page`` at a time as the iteration goes on.

        ``name``: a part of it, in any case. ``labels``: those that have all of them; None for a value: with any.
        """
        wanted = [key if value is None else f"{key}={value}" for key, value in (labels or {}).items()]
        query = {"state": state, "model": model, "dataset": dataset, "name": name, "label": wanted or None}
        return pages(self._http, Job, "/v1/jobs", query, page)

    def cancel(self, job_id: str) -> Job:
        """Ask for an end: at once if queued, within seconds if running. Raises ``ConflictError`` if finished."""
        return read(Job, self._http.post(f"{_job(job_id)}/cancel"))

    def retry(self, job_id: str) -> JobHandle:
        """Queue a failed or cancelled job again, as the same job. Raises ``ConflictError`` for any other."""
        return JobHandle(self, read(Job, self._http.post(f"{_job(job_id)}/retry")))

    def clone(self, job_id: str, **changes: Any) -> JobHandle:
        """Submit another job like that one, but for ``changes``: members of the request, ``recipe`` as a whole."""
        return JobHandle(self, read(Job, self._http.post(f"{_job(job_id)}/clone", changes)))

    def update(self, job_id: str, **changes: Any) -> Job:
        """Change its ``name``, ``labels``, ``notes`` or ``priority``.

        Raises ``PreconditionFailedError`` where somebody else did so at the same moment.
        """
        return read(Job, self._http.change(_job(job_id), changes))

    def delete(self, job_id: str) -> None:
        """The job, its report and its artifacts. Raises ``ConflictError`` unless it is finished."""
        self._http.delete(_job(job_id))

    def submit_all(self, requests: Sequence[Mapping[str, Any]]) -> tuple[JobHandle, ...]:
        """Submit up to 100 jobs, all or none: each ``{"model": …, "dataset": …, "recipe": {…}, …}``.

        Raises ``InvalidRequestError``, with ``/jobs/3/model`` and the like for what is wrong.
        """
        answer = self._http.post("/v1/jobs/batch", {"jobs": [dict(each) for each in requests]})
        return tuple(JobHandle(self, read(Job, item)) for item in member(answer, "items"))

    def compare(self, job_ids: Sequence[str]) -> Comparison:
        """The models of up to 16 finished jobs, or of one sweep. Raises ``ConflictError`` unless all have succeeded."""
        return read(Comparison, self._http.get("/v1/compare", {"jobs": ",".join(job_ids)}))

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """A ``snapshot`` of the job, then what happens to it, until it is finished.

        With ``after``, an event's id, what happened since comes instead of the snapshot; "0" tells the whole story.

        A broken or silent connection is opened again where it stopped: no event is lost or given twice.
        """
        last = after
        while True:
            heard = False
            for event in follow(self._http, f"{_job(job_id)}/events", JobEvent, last):
                heard, last = True, event.id or last
                yield event
                if event.state.finished:
                    return
            if not heard:  # the server had nothing to add and closed in good order
                if self.get(job_id).state.finished:
                    return
                time.sleep(self._http.retries.first_pause)

    def project_events(self, project: str = "default", *, after: str | None = None) -> Iterator[ProjectEvent]:
        """What happens to all jobs of a project from now on, or since the event ``after``; it does not end.

        As with ``events``, a broken connection costs nothing.
        """
        last = after
        path = f"/v1/projects/{quote(project, safe='')}/events"
        while True:
            for event in follow(self._http, path, ProjectEvent, last, passing_over={"opened"}):
                last = event.id or last
                yield event
            time.sleep(self._http.retries.first_pause)

    def storage(self) -> Storage:
        """What you have stored."""
        return read(Storage, self._http.get("/v1/storage"))

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job, once finished, whichever way. Raises ``WaitTimeoutError`` after ``timeout`` seconds."""
        start = time.monotonic()
        while True:
            job = self.get(job_id)
            waited = time.monotonic() - start
            if job.state.finished:
                return job
            if timeout is not None and waited >= timeout:
                raise WaitTimeoutError(job, timeout)
            pause = min(max(waited / 10, SOONEST_POLL), LATEST_POLL)  # at most a tenth later than it could have known
            time.sleep(pause if timeout is None else min(pause, timeout - waited))

    def report(self, job_id: str, *, ratio: float | None = None) -> Report:
        """Before against after. ``ratio``: which of a sweep's models.

        Raises ``ConflictError`` unless the job succeeded, ``RatioError`` for a sweep and no ratio.
        """
        answer = self._http.get(f"{_job(job_id)}/report", _ratio(ratio))
        if "table" in answer:
            raise RatioError(which([row["ratio"] for row in answer["table"]]))
        return read(Report, answer)

    def sweep_report(self, job_id: str) -> SweepReport:
        """The models of a sweep, compared. Raises ``ConflictError`` unless the job succeeded."""
        return read(SweepReport, self._http.get(f"{_job(job_id)}/report"))

    def evidence(self, job_id: str, *, ratio: float | None = None) -> Evidence:
        """What the report's pictures are drawn from. ``ratio``: of which of a sweep's models, which has to be said.

        Raises ``ConflictError`` unless the job succeeded, ``NotFoundError`` for one that an older server ran.
        """
        return read(Evidence, self._http.get(f"{_job(job_id)}/evidence", _ratio(ratio)))

    def plan(self, job_id: str, *, ratio: float | None = None) -> Plan:
        """What became of each layer. ``ratio``: in which of a sweep's models, which has to be said.

        Raises ``ConflictError`` while the job has none.
        """
        return read(Plan, self._http.get(f"{_job(job_id)}/plan", _ratio(ratio)))

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        """The files of a job that succeeded, with their sizes in bytes and their checksums."""
        items = member(self._http.get(f"{_job(job_id)}/artifacts"), "items")
        return tuple(read(Artifact, item) for item in items)

    def download(
        self,
        job_id: str,
        directory: str | Path,
        on_bytes: download.OnBytes = lambda artifact, count: None,
        *,
        exports: bool = True,
        ratio: float | None = None,
    ) -> Path:
        """Put the job's artifacts into ``directory`` and return it; ``vitpress.load`` opens it.

        Those of a sweep come in a folder for each model; with ``ratio``, those of one model alone, and in no folder.
        Without ``exports``, the files for other runtimes are left out; ``vitpress.load`` needs none of them.
        What an interrupted call left is continued, what is there already is kept, and every file is compared with the
        listed sha256. Raises ``ConflictError`` unless the job succeeded, ``IntegrityError`` for wrong bytes,
        ``RatioError`` for a ratio that the job has no model for.
        """
        directory = Path(directory)
        artifacts = self.artifacts(job_id)
        folder = "" if ratio is None else f"{FOLDER}{float(ratio)}/"
        if ratio is not None and not any(artifact.name.startswith(folder) for artifact in artifacts):
            folders = {artifact.name.partition("/")[0] for artifact in artifacts if "/" in artifact.name}
            raise RatioError(
                f"there is no model for the ratio {ratio:g}: "
                + which([float(name.removeprefix(FOLDER)) for name in folders if name.startswith(FOLDER)])
            )
        for artifact in artifacts:
            if not artifact.name.startswith(folder) or (not exports and artifact.name.endswith(EXPORT_SUFFIXES)):
                continue
            path = f"{_job(job_id)}/artifacts/{quote(artifact.name)}"
            download.fetch(self._http, path, artifact, directory, on_bytes, folder)
        return directory


def _recipe(method: str, target_ratio: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {"target_ratio": target_ratio, **options}
    return {"method": method} | {key: value for key, value in given.items() if value is not None}


def _ratio(ratio: float | None) -> dict[str, float] | None:
    return None if ratio is None else {"ratio": ratio}


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
