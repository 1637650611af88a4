"""Checks of what owners bring, as jobs. One that finds something wrong has done its work: its subject is rejected."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine

from core.archive_writer import LIMITS
from core.dataset_check import Checked, Thumbnail, check, thumbnails
from core.dataset_report import DatasetReport, Preview
from core.datasets import describe_folder
from core.errors import ArchiveError, DatasetError, UnknownDatasetError, first_line
from core.progress import Progress, Stage, StageClock
from store import checks, datasets
from store.blobs import Blobs
from store.datasets import DatasetView
from store.errors import BlobNotFoundError, DirectoryNotAllowedError
from store.session import transaction
from store.settings import Settings
from store.values import Claim, JobError
from worker import dataset_source

MAX_THREADS = 16  # that decode images; a disk that others share has its limits

_NO_GOOD = (ArchiveError, BlobNotFoundError, DatasetError, DirectoryNotAllowedError, UnknownDatasetError)


def check_dataset(claim: Claim, settings: Settings, database: Engine, blobs: Blobs, progress: StageClock) -> None:
    """Unpack it, look at every image, keep some thumbnails. Raises ``LeaseLostError``."""
    assert claim.subject_id is not None
    report, error = None, None
    try:
        with transaction(database, read_only=True) as session:
            view = datasets.by_id(session, claim.subject_id)
        report = _checked(view, settings, blobs, progress)
    except _NO_GOOD as refused:
        error = JobError(refused.code, first_line(refused))
    progress.stop()
    with transaction(database) as session:
        if report is None:
            checks.finish_check(session, claim, error, stage_seconds=progress.seconds)
        else:
            found = report.model_dump(mode="json")
            checks.finish_check(session, claim, None, stage_seconds=progress.seconds, report=found)


def _checked(view: DatasetView, settings: Settings, blobs: Blobs, progress: StageClock) -> DatasetReport:
    progress(Progress(Stage.LOAD, 0.0))
    with dataset_source.folder(view, blobs, settings) as path:
        info = describe_folder(view.name, path)
        if len(info.classes) > LIMITS.classes:
            raise DatasetError(f"{view.name}: more than {LIMITS.classes:,} classes")
        checked = check(
            info,
            threads=min(MAX_THREADS, os.cpu_count() or 1),
            on_progress=lambda fraction: progress(Progress(Stage.EVALUATE, fraction)),
            roots=() if view.directory is None else settings.dataset_roots,
        )
        pictures = thumbnails(describe_folder(view.name, path, checked.broken))
    progress(Progress(Stage.UPLOAD, 0.0))
    _put(blobs, view.id, checked, pictures)
    previews = tuple(Preview(name=each.name, class_name=each.class_name) for each in pictures)
    return checked.report.model_copy(update={"thumbnails": previews})


def _put(blobs: Blobs, dataset_id: str, checked: Checked, pictures: list[Thumbnail]) -> None:
    files = {datasets.thumbnail_key(dataset_id, each.name): each.data for each in pictures}
    files[datasets.broken_key(dataset_id)] = json.dumps(sorted(checked.broken)).encode()
    with TemporaryDirectory(prefix="vitpress-") as directory:
        path = Path(directory) / "file"
        for key, data in files.items():
            path.write_bytes(data)
            blobs.put_file(key, path)
