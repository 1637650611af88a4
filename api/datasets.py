"""The datasets that jobs calibrate and evaluate on: the samples, the operator's folders, and what owners bring."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from api.bringing import keep, to_be_checked
from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.resources import Database, Found
from api.schemas import JobError
from api.schemas_datasets import Dataset, DatasetDetail, DatasetList, DatasetRequest, Thumbnail
from core import datasets
from core.datasets import DatasetInfo
from core.errors import DatasetError, UnknownDatasetError
from store import datasets as own_datasets
from store.brought import SCHEME
from store.columns import uuid7
from store.datasets import DatasetView
from store.errors import (
    BlobNotFoundError,
    DatasetExistsError,
    DatasetInUseError,
    ThumbnailNotFoundError,
)
from store.session import transaction
from store.settings import Settings
from store.states import CheckState, JobKind

Name = Annotated[str, PathParameter(description="As jobs name it: `own:shoes`", max_length=200)]

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.get("", name="list_datasets", summary="List datasets")
def list_(asking: Reader, found: Found) -> DatasetList:
    """The server's, then your own. A folder of the server's whose splits contradict each other is left out."""
    with transaction(found.engine, read_only=True) as session:
        own = own_datasets.list_(session, asking.owner_id)
    return DatasetList(items=[*map(_provided, _usable(found.settings)), *map(_own, own)])


@router.post(
    "",
    name="create_dataset",
    summary="Bring a dataset",
    status_code=HTTPStatus.ACCEPTED,
    response_description="To be checked; `Location` is the dataset",
    responses=responses(DatasetExistsError, statuses=BODY_STATUSES),
)
def create(
    body: DatasetRequest, asking: Submitter, once: Once, found: Found, request: Request, response: Response
) -> Dataset:
    """From an upload, which is used up, or a directory. A worker looks at every image: jobs may read it once it is
    `ready`, and leave out the images that are broken."""
    dataset_id = uuid7()
    directory = _directory(body, found.settings)
    kept = keep(
        body.upload,
        asking.owner_id,
        found,
        prefix=own_datasets.prefix(dataset_id),
        key=own_datasets.data_key(dataset_id),
        names=own_datasets.names,
        taken=DatasetExistsError(f"{SCHEME}{body.name}"),
    )
    with to_be_checked(JobKind.CHECK_DATASET, dataset_id, kept, asking, once, found) as session:
        view = own_datasets.create(
            session,
            asking.owner_id,
            body.name,
            dataset_id=dataset_id,
            stored=kept.stored if kept else None,
            directory=directory,
        )
        response.headers["Location"] = request.url_for("get_dataset", dataset=view.name).path
        return once.answered(_own(view))


@router.get("/{dataset}", name="get_dataset", summary="Show a dataset", responses=responses(UnknownDatasetError))
def get(dataset: Name, asking: Reader, found: Found, request: Request) -> DatasetDetail:
    """With what the check of an own one found: counts, broken images, thumbnails."""
    if not dataset.startswith(SCHEME):
        settings = found.settings
        shown = _provided(datasets.describe(dataset, settings.samples_dir, settings.datasets_dir))
        return DatasetDetail(**shown.model_dump(), report=None, thumbnails=[])
    with transaction(found.engine, read_only=True) as session:
        view = own_datasets.get(session, asking.owner_id, dataset)
    thumbnails = [
        Thumbnail(
            class_name=each.class_name,
            url=request.url_for("get_thumbnail", dataset=dataset, name=each.name).path,
        )
        for each in (view.report.thumbnails if view.report else ())
    ]
    return DatasetDetail(**_own(view).model_dump(), report=view.report, thumbnails=thumbnails)


@router.get(
    "/{dataset}/thumbnails/{name}",
    name="get_thumbnail",
    summary="Show a thumbnail",
    response_class=StreamingResponse,
    response_description="At most 128 × 128 pixels",
    responses=responses(UnknownDatasetError, ThumbnailNotFoundError, BlobNotFoundError)
    | {200: {"content": {"image/webp": {"schema": {"type": "string", "format": "binary"}}}}},
)
def get_thumbnail(dataset: Name, name: str, asking: Reader, found: Found) -> Response:
    """Of one of your own datasets, whose `thumbnails` list the addresses: at most two images a class, and 64 in all."""
    with transaction(found.engine, read_only=True) as session:
        view = own_datasets.get(session, asking.owner_id, dataset)
    if name not in {each.name for each in (view.report.thumbnails if view.report else ())}:
        raise ThumbnailNotFoundError(dataset, name)
    return StreamingResponse(
        found.blobs.stream(own_datasets.thumbnail_key(view.id, name)),
        headers={"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"},
        media_type="image/webp",
    )


@router.delete(
    "/{dataset}",
    name="delete_dataset",
    summary="Delete a dataset",
    responses=responses(UnknownDatasetError, DatasetInUseError),
)
def delete(dataset: Name, asking: Submitter, engine: Database) -> Dataset:
    """One of your own. A directory stays as it is. The answer is what the dataset was."""
    with transaction(engine) as session:
        return _own(own_datasets.remove(session, asking.owner_id, dataset))


def _directory(body: DatasetRequest, settings: Settings) -> Path | None:
    if body.directory is None:
        return None
    given = body.directory
    return checked(lambda: own_datasets.allowed_directory(given, settings.dataset_roots))[0]


def _usable(settings: Settings) -> Iterator[DatasetInfo]:
    for name in datasets.names(settings.samples_dir, settings.datasets_dir):
        try:
            yield datasets.describe(name, settings.samples_dir, settings.datasets_dir)
        except DatasetError:
            continue


def _provided(info: DatasetInfo) -> Dataset:
    return Dataset(
        name=info.name,
        classes=info.classes,
        splits=list(info.splits),
        state=CheckState.READY,
        error=None,
        created_at=None,
        size=None,
        directory=None,
    )


def _own(view: DatasetView) -> Dataset:
    return Dataset(
        name=view.name,
        classes=tuple(each.name for each in view.report.classes) if view.report else (),
        splits=list(view.report.splits) if view.report else [],
        state=view.state,
        error=None if view.error is None else JobError.model_validate(view.error),
        created_at=view.created_at,
        size=None if view.blob_key is None else view.size,
        directory=view.directory,
    )
