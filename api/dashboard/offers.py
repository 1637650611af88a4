"""The models to pick from, with what one wants to know of them before: size, input, accuracy where it is known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.resources import Found
from core import catalog
from core.errors import UnknownModelError
from store import accuracies, own_models
from store.accuracies import Accuracy
from store.brought import SCHEME
from store.session import transaction
from store.tables import CheckState
from store.values import Identity

AT_ONCE = 40  # more than fit on a screen: whoever looks further types another word


@dataclass(frozen=True)
class Offer:
    name: str
    parameters: int | None
    macs: int | None
    input_size: tuple[int, int, int] | None
    classes: int | None
    own_dataset: str | None  # of a sample: what it was trained for
    accuracy: Accuracy | None


def offered(found: Found, visitor: Identity, search: str) -> tuple[list[Offer], int]:
    """Those whose names contain every word, the visitor's own first; and how many there are beyond them."""
    with transaction(found.engine, read_only=True) as session:
        own = [view for view in own_models.list_(session, visitor.owner_id) if view.state is CheckState.READY]
        measured = accuracies.measured(session, visitor.owner_id)
    words = search.lower().split()
    names = [
        name for name in (*(view.name for view in own), *catalog.names()) if all(word in name.lower() for word in words)
    ]
    brought = {view.name: view for view in own}
    shown = [
        _brought(brought[name], measured) if name in brought else _of_catalogue(found, name, measured)
        for name in names[:AT_ONCE]
    ]
    return shown, len(names) - len(shown)


def offer(found: Found, visitor: Identity, name: str) -> Offer | None:
    """The model of that name, if there is one that jobs may compress."""
    with transaction(found.engine, read_only=True) as session:
        measured = accuracies.measured(session, visitor.owner_id)
        if name.startswith(SCHEME):
            try:
                view = own_models.get(session, visitor.owner_id, name)
            except UnknownModelError:
                return None
            return _brought(view, measured) if view.state is CheckState.READY else None
    return _of_catalogue(found, name, measured) if name in catalog.names() else None


def _brought(view: own_models.ModelView, measured: Mapping[str, Accuracy]) -> Offer:
    config = view.config
    return Offer(
        view.name,
        view.parameters,
        view.macs,
        None if config is None else config.preprocessing.input_size,
        None if config is None else config.kwargs["num_classes"],
        None,
        measured.get(view.name),
    )


def _of_catalogue(found: Found, name: str, measured: Mapping[str, Accuracy]) -> Offer:
    entry = catalog.get(name)
    accuracy = measured.get(name)
    if accuracy is None and entry.dataset is not None:
        accuracy = _trained(found.settings.samples_dir / name.partition(":")[2], entry.dataset)
    return Offer(name, entry.parameters, entry.macs, entry.input_size, entry.num_classes, entry.dataset, accuracy)


def _trained(folder: Path, dataset: str) -> Accuracy | None:
    """What the training of a sample ended with."""
    try:
        return Accuracy(dataset, float(json.loads((folder / "training.json").read_text())["top1"]))
    except (OSError, ValueError, KeyError):
        return None
