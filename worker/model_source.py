"""The model that a job compresses: of the catalogue, or the owner's own from its blob."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from core.errors import CheckpointError
from store import own_models
from store.blobs import Blobs
from store.brought import SCHEME
from store.own_models import ModelView
from store.session import transaction
from store.settings import Settings
from vitpress.artifact import WEIGHTS

if TYPE_CHECKING:
    import torch

    from core.models import Loaded


def load(
    name: str, owner_id: str, database: Engine, blobs: Blobs, settings: Settings, device: "torch.device"
) -> "Loaded":
    """Raises ``UnknownModelError``, ``ModelNotReadyError``, ``CheckpointError``, ``BlobNotFoundError``,
    ``HubUnreachableError``."""
    from core import models  # seconds of importing
    from core import own_models as own

    if not name.startswith(SCHEME):
        return models.load(name, settings.samples_dir, device)
    with transaction(database, read_only=True) as session:
        view = own_models.ready(session, owner_id, name)
    assert view.config is not None
    with weights(view, blobs) as path:
        return own.load(path, view.config, device)


@contextmanager
def weights(view: ModelView, blobs: Blobs) -> Iterator[Path]:
    """The checkpoint as a file, until the end of the context. Raises ``CheckpointError``, ``BlobNotFoundError``."""
    assert view.blob_key is not None
    with TemporaryDirectory(prefix="vitpress-") as directory:
        path = Path(directory) / WEIGHTS
        if blobs.get_file(view.blob_key, path).sha256 != view.sha256:
            raise CheckpointError(f"{view.name}: the stored checkpoint is damaged; upload it again")
        yield path
