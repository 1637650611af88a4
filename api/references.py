"""What a request's names stand for, to whoever asks."""

from api.resources import Resources
from core import datasets
from store import datasets as own_datasets
from store.session import transaction


def check_dataset(found: Resources, owner_id: str, name: str) -> None:
    """Raises ``UnknownDatasetError``, ``DatasetError`` unless a job of the owner's may read it."""
    if name.startswith(own_datasets.SCHEME):
        with transaction(found.engine, read_only=True) as session:
            own_datasets.ready(session, owner_id, name)
        return
    datasets.describe(name, found.settings.samples_dir, found.settings.datasets_dir)
