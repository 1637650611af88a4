"""The models that vitpress knows, with the shapes of what can be compressed in them. Torch-free.

``catalog.json`` is generated from timm by ``python -m core.catalog_build``, and never edited by hand.
"""

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.errors import UnknownModelError
from core.shapes import ModelShape

DATA = Path(__file__).with_name("catalog.json")


class CatalogEntry(BaseModel):
    """One model. ``parameters`` and ``macs`` (multiply-accumulates of one image) are of the whole model."""

    model_config = ConfigDict(frozen=True)

    name: str
    architecture: str
    input_size: tuple[int, int, int]
    num_classes: int
    dataset: str | None = None  # of a sample: what it was trained for, and jobs take if they name no other
    shape: ModelShape

    @property
    def parameters(self) -> int:
        return self.shape.parameters

    @property
    def macs(self) -> int:
        return self.shape.macs


def names() -> list[str]:
    """Every model's name: the samples first, then timm's, alphabetically."""
    return list(_data()["models"])


def get(name: str) -> CatalogEntry:
    """Raises ``UnknownModelError`` with near matches."""
    found = _data()["models"].get(name)
    if found is None:
        raise UnknownModelError(name, near(name))
    return CatalogEntry(name=name, **(found | {"shape": _shape(found["shape"])}))


def dataset_of(name: str) -> str | None:
    """What a sample was trained for; None of every other name."""
    dataset: str | None = _data()["models"].get(name, {}).get("dataset")
    return dataset


def search(text: str) -> list[CatalogEntry]:
    """The entries whose name contains every word of ``text``."""
    words = text.lower().split()
    return [get(name) for name in names() if all(word in name.lower() for word in words)]


def near(name: str) -> list[str]:
    """Up to five names that ``name`` may have been meant for."""
    return resembling(name, names())


def resembling(name: str, known: list[str]) -> list[str]:
    """Up to five of ``known``: those that ``name`` begins, then those that it resembles."""
    begun = [each for each in known if each.startswith(name)] if name else []
    return list(dict.fromkeys(begun + difflib.get_close_matches(name[:200], known, n=5, cutoff=0.5)))[:5]


def architectures() -> set[str]:
    """timm's names, without tags, of the models here."""
    return {entry["architecture"] for entry in _data()["models"].values()}


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(DATA.read_text())
    return data


@cache
def _shape(key: str) -> ModelShape:
    """Shapes are stored once for all models that share them, and a block's layers once for all equal blocks."""
    stored = _data()["shapes"][key]
    layers = [
        layer | {"path": layer["path"].replace("{}", str(index))}
        for group in stored["groups"]
        for index in group["blocks"]
        for layer in group["layers"]
    ]
    return ModelShape(**(stored["totals"] | {"layers": layers}))
