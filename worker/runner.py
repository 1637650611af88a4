"""One attempt at one job, in a process of its own: fetch, ``core``, put. Started by ``worker.supervisor``.

The claim is the first line of stdin. Everything this process writes goes through the claim's fence: once the job is
somebody else's, it ends without a word. Exit status 0 means no more than that it had nothing left to say.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from sqlalchemy import Engine

from core.datasets import DatasetInfo
from core.errors import VitpressError, first_line
from core.progress import OnProgress, Progress, Stage, StageClock
from core.report import AnyReport
from store import attempts, jobs, logs, trash
from store.blobs import Blobs
from store.errors import BlobStoreError, LeaseLostError
from store.local_blobs import FULL
from store.session import DATABASE_UNREACHABLE, engine, transaction
from store.settings import Settings, get_settings
from store.states import JobKind
from store.values import ArtifactView, Claim, JobError, JobView
from worker import checking, dataset_source, lifeline, model_checking, model_source, spans
from worker.checkpoints import BlobCheckpoints

PROGRESS_SECONDS = 0.5  # between two writes within a stage
MEDIA_TYPES = {".json": "application/json"}
_FULL_ELSEWHERE = tuple(f"(os error {number})" for number in FULL)  # as libraries written in Rust say it

log = structlog.get_logger(__name__)


def main() -> None:
    """The claim is the line on stdin; whoever wrote it keeps the other end open for as long as this is to live."""
    claim = Claim.model_validate_json(sys.stdin.readline())
    lifeline.hold()
    go_first()
    logs.configure()
    structlog.contextvars.bind_contextvars(**claim.for_logs())
    settings = get_settings()
    with outcome_of(claim, engine(settings)), spans.attempt(claim):
        run(claim, settings)


def go_first() -> None:
    """Where memory runs out, the kernel is to end this process, and no worker or database beside it."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def run(claim: Claim, settings: Settings) -> None:
    """The attempt, of whichever kind. What goes wrong is raised: ``outcome_of`` says what it means."""
    database = engine(settings)
    progress = StageClock(Recorder(database, claim))
    blobs = Blobs.open(settings)
    if claim.kind is JobKind.CHECK_MODEL:
        model_checking.check_model(claim, settings, database, blobs, progress)
        return
    if claim.kind is JobKind.CHECK_DATASET:
        checking.check_dataset(claim, settings, database, blobs, progress)
        return
    with transaction(database, read_only=True) as session:
        job = jobs.get(session, claim.job_id)
    progress(Progress(Stage.LOAD, 0.0))
    with dataset_source.opened(job.dataset, job.owner_id, database, blobs, settings) as dataset:
        compress(claim, job, dataset, settings, progress)


def compress(claim: Claim, job: JobView, dataset: DatasetInfo, settings: Settings, progress: StageClock) -> None:
    """From the job's names to its artifacts in the blob store and its success in the database."""
    database, blobs = engine(settings), Blobs.open(settings)
    # Seconds of importing: only now, when the job has said that it loads, and nothing cheap can fail it any more.
    from core import artifact, data, models, pipeline

    device = models.device_named("cuda" if settings.device == "gpu" else settings.device)
    loaded = model_source.load(job.model, job.owner_id, database, blobs, settings, device)
    splits = data.open_splits(dataset, loaded.config, job.recipe.calibration_images, job.recipe.seed)
    with BlobCheckpoints(blobs, database, claim) as checkpoints:
        compressed = pipeline.sweep(loaded.model, job.recipe, splits, progress, checkpoints)

    with TemporaryDirectory(prefix="vitpress-") as directory:
        progress(Progress(Stage.EXPORT, 0.0))
        report: AnyReport
        if job.recipe.target_ratios:
            report = artifact.export_sweep(compressed, job.recipe, loaded.config, Path(directory), progress)
        else:
            report = artifact.export(compressed[0], loaded.config, Path(directory), progress)
        with leaving_nothing_if_fenced_off(blobs, claim):
            artifacts = upload(blobs, claim, Path(directory), progress)
            progress.stop()
            with transaction(database) as session:
                attempts.finish(
                    session,
                    claim,
                    plan=[each.plan for each in compressed] if job.recipe.target_ratios else compressed[0].plan,
                    report=report,
                    artifacts=artifacts,
                    stage_seconds=progress.seconds,
                )
    for lost in range(1, claim.attempt):  # what they had put before they died
        blobs.delete_prefix(trash.attempt_prefix(claim.job_id, lost))


@contextmanager
def leaving_nothing_if_fenced_off(blobs: Blobs, claim: Claim) -> Iterator[None]:
    """An attempt that was away for longer than the trash waits has its files deleted by nobody else."""
    try:
        yield
    except LeaseLostError:
        blobs.delete_prefix(trash.attempt_prefix(claim.job_id, claim.attempt))
        raise


def upload(blobs: Blobs, claim: Claim, directory: Path, progress: OnProgress) -> list[ArtifactView]:
    """Put every file in ``directory`` under this attempt's own prefix, where no other attempt writes.

    Its name is its path in there: that of a sweep's has the folder of its model.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    total, done = sum(path.stat().st_size for path in files), 0
    artifacts = []
    for path in files:
        progress(Progress(Stage.UPLOAD, done / total))
        name = path.relative_to(directory).as_posix()
        key = f"{trash.attempt_prefix(claim.job_id, claim.attempt)}/{name}"
        stored = blobs.put_file(key, path)
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        artifacts.append(ArtifactView(name, stored.size, stored.sha256, media_type, key))
        done += stored.size
    return artifacts


class Recorder:
    """Progress → database, under the fence.

    Raises ``LeaseLostError`` out of whatever was reporting: that is how a fenced-off attempt stops. A database that is
    away for a while costs no more than the report.
    """

    def __init__(self, database: Engine, claim: Claim) -> None:
        self._database, self._claim = database, claim
        self._stage: Stage | None = None
        self._written = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """A stage's first is written at once, others if nothing was for ``PROGRESS_SECONDS``."""
        at = time.monotonic()
        if progress.stage is not self._stage:
            spans.enter(progress.stage)
        elif at - self._written < PROGRESS_SECONDS:
            return
        try:
            with transaction(self._database) as session:
                attempts.record_progress(session, self._claim, progress)
        except DATABASE_UNREACHABLE as error:
            log.warning("progress not recorded", error=first_line(error))
        self._stage, self._written = progress.stage, at


@contextmanager
def outcome_of(claim: Claim, database: Engine) -> Iterator[None]:
    """What goes wrong becomes the job's error, unless the job is no longer ours to speak of."""
    try:
        yield
    except LeaseLostError as lost:
        log.info("fenced off", reason=str(lost))
    except DATABASE_UNREACHABLE:
        raise  # not the job's fault, and nothing can be written about it: the supervisor counts the attempt as lost
    except BlobStoreError as error:
        log.exception("blob store failed")
        with transaction(database) as session:
            attempts.lose(session, claim, JobError(error.code, first_line(error)))
    except Exception as error:
        log.exception("attempt failed")
        if is_disk_full(error):  # of this machine; another may have room
            with transaction(database) as session:
                attempts.lose(session, claim, JobError("disk_full", f"the worker has no room: {first_line(error)}"))
            return
        with suppress(LeaseLostError), transaction(database) as session:
            attempts.fail(session, claim, explain(error))


def is_disk_full(error: Exception) -> bool:
    """Whatever library says so, and however."""
    return (isinstance(error, OSError) and error.errno in FULL) or str(error).endswith(_FULL_ELSEWHERE)


def explain(error: Exception) -> JobError:
    """One line for the job's user; the traceback is the log's."""
    line = first_line(error)
    if isinstance(error, VitpressError):
        return JobError(error.code, line)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in line:
        return JobError("worker_oom", f"the job needs more memory than the worker has: {line}")
    return JobError("internal", f"{type(error).__name__}: {line}")


if __name__ == "__main__":
    main()
