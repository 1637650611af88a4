"""The datasets that jobs can calibrate and evaluate on: the samples, and the folders that the operator provides."""

from collections.abc import Iterator

from fastapi import APIRouter

from api.resources import Config
from api.schemas import Dataset, DatasetList
from core import datasets
from core.errors import DatasetError
from store.settings import Settings

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.get("", name="list_datasets", summary="List datasets")
def list_(settings: Config) -> DatasetList:
    """Every usable one: a folder whose splits contradict each other is left out."""
    return DatasetList(items=list(_usable(settings)))


def _usable(settings: Settings) -> Iterator[Dataset]:
    for name in datasets.names(settings.samples_dir, settings.datasets_dir):
        try:
            info = datasets.describe(name, settings.samples_dir, settings.datasets_dir)
        except DatasetError:
            continue
        yield Dataset(name=info.name, classes=info.classes, splits=list(info.splits))
