"""Datasets, as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from api.schemas import JobError, RequestBody, ResponseBody
from api.schemas_identity import Slug
from core.dataset_report import DatasetReport
from store.states import CheckState

_ID = "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57"
_DATASET: dict[str, Any] = {
    "name": "own:shoes",
    "classes": ["boot", "sandal"],
    "splits": ["calibration", "evaluation"],
    "state": "ready",
    "error": None,
    "created_at": "2026-11-24T09:30:00Z",
    "size": 31_457_280,
    "directory": None,
}
_DETAIL = _DATASET | {
    "report": {
        "version": 1,
        "splits": {"calibration": 4096, "evaluation": 1023},
        "classes": [
            {"name": "boot", "images": {"calibration": 2048, "evaluation": 512}},
            {"name": "sandal", "images": {"calibration": 2048, "evaluation": 511}},
        ],
        "bytes": 30_932_992,
        "modes": {"RGB": 5119},
        "width": {"smallest": 224, "largest": 1024},
        "height": {"smallest": 224, "largest": 768},
        "broken": [{"path": "val/sandal/0815.jpg", "reason": "image file is truncated"}],
        "broken_images": 1,
        "skipped_files": 2,
        "thumbnails": [{"name": "00.webp", "class_name": "boot"}],
    },
    "thumbnails": [{"class_name": "boot", "url": "/v1/datasets/own:shoes/thumbnails/00.webp"}],
}

Directory = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^/[^\x00-\x1f\x7f-\x9f]*$")]


class DatasetRequest(RequestBody):
    """Either an upload or a directory."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "shoes", "upload": _ID}, {"name": "imagenet", "directory": "/data/imagenet"}]
        },
    )

    name: Annotated[Slug, Field(description="Jobs name it `own:<name>`")]
    upload: Annotated[
        str | None,
        Field(
            max_length=36,
            description="The id of a complete upload: a zip or tar of class folders, or of `train` and `val` folders "
            "of them; or a Parquet file of image bytes and labels",
        ),
    ] = None
    directory: Annotated[
        Directory | None, Field(description="On a disk of the workers, where the server allows it; it is only read")
    ] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.directory is None):
            raise ValueError("needs either an upload or a directory")
        return self


class Dataset(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_DATASET]})

    name: str
    classes: Annotated[tuple[str, ...], Field(description="In the order of their labels; none before the check")]
    splits: Annotated[list[str], Field(description="`calibration` and `evaluation`, or `all`: one set, to be divided")]
    state: Annotated[CheckState, Field(description="Jobs read what is `ready`")]
    error: Annotated[JobError | None, Field(description="Why it was rejected")]
    created_at: Annotated[datetime | None, Field(description="Null of what is the server's")]
    size: Annotated[int | None, Field(description="Bytes stored; null of what is not stored here")]
    directory: str | None


class Thumbnail(ResponseBody):
    class_name: str
    url: str


class DatasetDetail(Dataset):
    model_config = ConfigDict(json_schema_extra={"examples": [_DETAIL]})

    report: Annotated[DatasetReport | None, Field(description="What the check found; null before, and of samples")]
    thumbnails: list[Thumbnail]


class DatasetList(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_DATASET]}]})

    items: list[Dataset]
