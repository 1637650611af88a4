"""What a request's names stand for, to whoever asks."""

import time
from functools import lru_cache
from pathlib import Path

from sqlalchemy.orm import Session

from api.resources import Resources
from core import catalog, datasets
from core.shapes import ModelShape
from store import datasets as own_datasets
from store import own_models
from store.brought import SCHEME
from store.session import transaction

PROVIDED_SECONDS = 5  # for which a folder that was a dataset is taken to be one still; the worker looks again


def model_shape(session: Session, owner_id: str, name: str) -> ModelShape:
    """Raises ``UnknownModelError``, ``ModelNotReadyError`` unless a job of the owner's may compress it."""
    if not name.startswith(SCHEME):
        return catalog.get(name).shape
    shape = own_models.shape(session, own_models.ready(session, owner_id, name).id)
    assert shape is not None
    return shape


def check_dataset(found: Resources, owner_id: str, name: str) -> None:
    """Raises ``UnknownDatasetError``, ``DatasetError`` unless a job of the owner's may read it."""
    if name.startswith(SCHEME):
        with transaction(found.engine, read_only=True) as session:
            own_datasets.ready(session, owner_id, name)
        return
    moment = int(time.monotonic() / PROVIDED_SECONDS)
    _check_provided(name, found.settings.samples_dir, found.settings.datasets_dir, moment)


@lru_cache(maxsize=256)
def _check_provided(name: str, samples_dir: Path, datasets_dir: Path | None, _moment: int) -> None:
    datasets.describe(name, samples_dir, datasets_dir)
