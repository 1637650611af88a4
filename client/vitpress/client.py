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
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

from httpx_sse import EventSource
from pydantic import BaseModel, ValidationError

from vitpress import download
from vitpress.artifact import load
from vitpress.errors import (
    JobFailedError,
    RatioError,
    UnexpectedAnswerError,
    VitpressClientError,
    WaitTimeoutError,
)
from vitpress.plan import Plan
from vitpress.report import Report, SweepReport
from vitpress.transport import Attempts, Retries, Transport
from vitpress.values import Artifact, DatasetInfo, Job, JobEvent, JobState, ModelInfo

if TYPE_CHECKING:
    from torch import nn

DEFAULT_URL = "http://127.0.0.1:8000"
EXPORT_SUFFIXES = (".onnx", ".pt2")
FOLDER = "ratio-"  # of one model of a sweep, with its ratio behind
SILENCE = 45.0  # seconds: three of the server's keep-alive comments, which come every 15 s
SOONEST_POLL, LATEST_POLL = 0.2, 5.0  # seconds

_Value = TypeVar("_Value", bound=BaseModel)


class Client:
    """A connection to one server; safe to share between threads, usable as a context manager.

    ``base_url`` defaults to ``$VITPRESS_URL``, then to ``http://127.0.0.1:8000``. ``timeout``, in seconds, bounds each
    wait for the server's next bytes. Every method raises ``ServerUnreachableError`` when there is no connection,
    ``ApiError`` (``NotFoundError``, ``ConflictError``, ``InvalidRequestError``) when the server refuses, and
    ``UnexpectedAnswerError`` when what answers is not vitpress. Reading requests are retried as ``retries`` says.
    """

    def __init__(self, base_url: str | None = None, *, timeout: float = 30.0, retries: Retries | None = None) -> None:
        self.base_url = base_url or os.environ.get("VITPRESS_URL") or DEFAULT_URL
        self._http = Transport(self.base_url, timeout, retries or Retries())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def compress(
        self,
        model: str,
        *,
        dataset: str,
        target_ratio: float | None = None,
        method: str = "fisher",
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_seconds: int | None = None,
        **options: Any,
    ) -> JobHandle:
        """Submit a compression. ``target_ratio``: the fraction of all parameters to remove, in (0, 1).

        In its place, ``options`` may have another goal: ``target_macs`` or ``target_latency`` (with ``latency_batch``),
        fractions to remove as well; ``max_error_increase``, relative, for the smallest model within; ``target_ratios``,
        for which see ``sweep``. The other members of the recipe are ``rank_budget``, ``prune_budget``,
        ``calibration_images``, ``seed``, ``finetune`` (``{}``, or ``{"epochs": 20}`` and the like), ``exports``
        (``["onnx"]`` and the like) and those of the method; None leaves one to the server's default.
        ``timeout_seconds`` counts running time. Raises ``InvalidRequestError`` for an unknown model, dataset or option,
        or an unreachable target.
        """
        body = {
            "model": model,
            "dataset": dataset,
            "recipe": _recipe(method, target_ratio, options),
            "name": name,
            "labels": dict(labels) if labels else None,
            "timeout_seconds": timeout_seconds,
        }
        given = {key: value for key, value in body.items() if value is not None}
        return JobHandle(self, _read(Job, self._http.post("/v1/jobs", given)))

    def sweep(self, model: str, *, dataset: str, target_ratios: Sequence[float], **options: Any) -> JobHandle:
        """Submit one job for several ratios, 2 to 16 of them; ``options`` as those of ``compress``.

        ``sweep_report`` compares its models; ``report``, ``plan``, ``download`` and ``load`` take the ``ratio`` of one.
        """
        return self.compress(model, dataset=dataset, target_ratios=list(target_ratios), **options)

    def dry_run(self, model: str, *, target_ratio: float | None = None, method: str = "fisher", **options: Any) -> Plan:
        """The plan that a recipe would give, from the model's shapes alone: no data, no GPU, no job.

        Of a ``target_ratio`` or a ``target_macs``; raises ``InvalidRequestError`` for a goal that takes measuring.
        """
        body = {"model": model, "recipe": _recipe(method, target_ratio, options)}
        return _read(Plan, _member(self._http.post("/v1/plans", body, repeatable=True), "plan"))

    def job(self, job_id: str) -> JobHandle:
        """Follow a job that is there already."""
        return JobHandle(self, self.get(job_id))

    def get(self, job_id: str) -> Job:
        return _read(Job, self._http.get(_job(job_id)))

    def jobs(self, *, state: JobState | str | None = None, model: str | None = None, page: int = 50) -> Iterator[Job]:
        """The jobs, newest first, fetched ``page`` at a time as the iteration goes on."""
        return self._pages(Job, "/v1/jobs", {"state": state, "model": model, "limit": page})

    def cancel(self, job_id: str) -> Job:
        """Ask for an end: at once if queued, within seconds if running. Raises ``ConflictError`` if finished."""
        return _read(Job, self._http.post(f"{_job(job_id)}/cancel"))

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """A ``snapshot`` of the job, then what happens to it, until it is finished.

        With ``after``, an event's id, what happened since comes instead of the snapshot; "0" tells the whole story.

        A broken or silent connection is opened again where it stopped: no event is lost or given twice.
        """
        attempts = Attempts(self._http.retries.stream_attempts, self._http.retries)
        last = after
        while True:
            headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
            if last is not None:
                headers["Last-Event-ID"] = last
            heard = False
            try:
                with self._http.stream(f"{_job(job_id)}/events", headers, SILENCE) as response:
                    if not response.headers.get("content-type", "").startswith("text/event-stream"):
                        raise UnexpectedAnswerError(f"{response.url} answered with no event stream")
                    for message in EventSource(response).iter_sse():
                        if not message.data:
                            continue
                        heard, last = True, message.id or last
                        attempts.progressed()
                        event = _event(message.id, message.event, message.json())
                        yield event
                        if event.state.finished:
                            return
            except VitpressClientError as error:
                attempts.pause_after(error)
                continue
            except ValueError as error:
                raise UnexpectedAnswerError(f"{self.base_url} sent no event of vitpress's: {error}") from error
            if not heard:  # the server had nothing to add and closed in good order
                if self.get(job_id).state.finished:
                    return
                time.sleep(self._http.retries.first_pause)

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
            raise RatioError(_which([row["ratio"] for row in answer["table"]]))
        return _read(Report, answer)

    def sweep_report(self, job_id: str) -> SweepReport:
        """The models of a sweep, compared. Raises ``ConflictError`` unless the job succeeded."""
        return _read(SweepReport, self._http.get(f"{_job(job_id)}/report"))

    def plan(self, job_id: str, *, ratio: float | None = None) -> Plan:
        """What became of each layer. ``ratio``: in which of a sweep's models, which has to be said.

        Raises ``ConflictError`` while the job has none.
        """
        return _read(Plan, self._http.get(f"{_job(job_id)}/plan", _ratio(ratio)))

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        items = _member(self._http.get(f"{_job(job_id)}/artifacts"), "items")
        return tuple(_read(Artifact, item) for item in items)

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
                + _which([float(name.removeprefix(FOLDER)) for name in folders if name.startswith(FOLDER)])
            )
        for artifact in artifacts:
            if not artifact.name.startswith(folder) or (not exports and artifact.name.endswith(EXPORT_SUFFIXES)):
                continue
            path = f"{_job(job_id)}/artifacts/{quote(artifact.name)}"
            download.fetch(self._http, path, artifact, directory, on_bytes, folder)
        return directory

    def models(self, search: str | None = None, *, page: int = 50) -> Iterator[ModelInfo]:
        """The models that can be compressed, those like ``search`` if given."""
        return self._pages(ModelInfo, "/v1/models", {"search": search, "limit": page})

    def model(self, name: str) -> ModelInfo:
        return _read(ModelInfo, self._http.get(f"/v1/models/{quote(name, safe=':/')}"))

    def datasets(self) -> tuple[DatasetInfo, ...]:
        return tuple(_read(DatasetInfo, item) for item in _member(self._http.get("/v1/datasets"), "items"))

    def _pages(self, kind: type[_Value], path: str, query: Mapping[str, str | int | None]) -> Iterator[_Value]:
        params = {key: value for key, value in query.items() if value is not None}
        while True:
            page = self._http.get(path, params)
            yield from (_read(kind, item) for item in _member(page, "items"))
            if not (cursor := page.get("next_cursor")):
                return
            params["cursor"] = cursor


class JobHandle:
    """One job of one server. ``job`` is its last known value; the methods ask the server."""

    def __init__(self, client: Client, job: Job) -> None:
        self.client, self.job = client, job

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self.job.state}>"

    @property
    def id(self) -> str:
        return self.job.id

    def refresh(self) -> Job:
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
        self.job = self.client.cancel(self.id)
        return self.job

    def report(self, *, ratio: float | None = None) -> Report:
        return self.client.report(self.id, ratio=ratio)

    def sweep_report(self) -> SweepReport:
        return self.client.sweep_report(self.id)

    def plan(self, *, ratio: float | None = None) -> Plan:
        return self.client.plan(self.id, ratio=ratio)

    def artifacts(self) -> tuple[Artifact, ...]:
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
            raise RatioError(_which(ratios))
        kept = directory or _cache() / self.id / ("" if ratio is None else f"{FOLDER}{float(ratio)}")
        return load(self.download(kept, exports=False, ratio=ratio))


def _recipe(method: str, target_ratio: float | None, options: Mapping[str, Any]) -> dict[str, Any]:
    given = {"target_ratio": target_ratio, **options}
    return {"method": method} | {key: value for key, value in given.items() if value is not None}


def _ratio(ratio: float | None) -> dict[str, float] | None:
    return None if ratio is None else {"ratio": ratio}


def _which(ratios: Sequence[float]) -> str:
    if not ratios:
        return "the job has one model, and needs no ratio"
    return f"the job has a model for each of {', '.join(map(str, sorted(ratios)))}"


def _job(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitpress"


def _event(event_id: str, kind: str, data: Any) -> JobEvent:
    return JobEvent.model_validate({**data, "id": event_id, "kind": kind})


def _read(kind: type[_Value], answer: Any) -> _Value:
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswerError(
            f"the server's {kind.__name__} has an unexpected {where}: {first['msg']}"
        ) from error


def _member(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise UnexpectedAnswerError(f"expected an answer with {name!r}, got {str(answer)[:80]!r}")
    return answer[name]
