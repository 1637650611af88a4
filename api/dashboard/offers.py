"""The models to pick from, with what one wants to know of them before: size, input, accuracy where it is known."""

import json
import re
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
from store.states import CheckState
from store.values import Identity

AT_ONCE = 40  # more than fit on a screen: whoever looks further types another word

_BOUND = re.compile(r"([<>])(\d+(?:\.\d+)?)([kmg%]?)")
_INPUT = re.compile(r"(\d+)(?:[x×]\1)?(?:px)?")
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@dataclass(frozen=True)
class Offer:
    """``macs``: of one image. ``input_size``: channels, height, width.

    ``accuracy``: as the visitor's own jobs have measured it, or a sample's training; None: nobody knows it.
    """

    name: str
    parameters: int | None
    macs: int | None
    input_size: tuple[int, int, int] | None
    classes: int | None
    own_dataset: str | None  # of a sample: what it was trained for
    accuracy: Accuracy | None


def offered(found: Found, visitor: Identity, search: str) -> tuple[list[Offer], int]:
    """Those that every word of ``search`` is true of, the visitor's own first, no more than ``AT_ONCE``; and how many
    there are.

    A word is part of the name; or the input's side, as ``384``; or a bound, as ``<30M`` for the parameters and ``>90%``
    for the accuracy, which is true of those alone whose accuracy is known.
    """
    with transaction(found.engine, read_only=True) as session:
        own = [view for view in own_models.list_(session, visitor.owner_id) if view.state is CheckState.READY]
        measured = accuracies.measured(session, visitor.owner_id)
    everything = [_brought(view, measured) for view in own]
    everything += [_of_catalogue(found, name, measured) for name in catalog.names()]
    words = search.lower().split()
    fitting = [each for each in everything if all(_fits(each, word) for word in words)]
    return fitting[:AT_ONCE], len(fitting)


def _fits(offer: Offer, word: str) -> bool:
    if bound := _BOUND.fullmatch(word):
        sign, number, unit = bound.groups()
        limit = float(number) * _UNITS.get(unit, 0.01)
        known = (offer.accuracy.top1 if offer.accuracy else None) if unit == "%" else offer.parameters
        return known is not None and (known <= limit if sign == "<" else known >= limit)
    if (side := _INPUT.fullmatch(word)) and offer.input_size and int(side[1]) == offer.input_size[-1]:
        return True
    return word in offer.name.lower()


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
