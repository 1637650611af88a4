"""Write ``catalog.json`` from timm's registry and the samples: ``python -m core.catalog_build``."""

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import timm
import torch

from core.catalog import DATA
from core.families import describe
from core.shapes import ModelShape
from vitpress.artifact import CONFIG, read_config

TIMM_MODULES = ("vision_transformer", "deit")  # files of timm.models whose classes core.families has adapters for
SAMPLES = Path(__file__).parents[1] / "samples"


def timm_entries() -> Iterator[tuple[str, dict[str, Any], ModelShape]]:
    """Every classifier with pretrained weights that has something to compress, built without memory on "meta"."""
    for architecture in timm.list_models(module=list(TIMM_MODULES)):
        shapes: dict[tuple[object, ...], ModelShape] = {}
        tags = [name for name in timm.list_pretrained(f"{architecture}*") if name.split(".")[0] == architecture]
        for name in tags[:1] and [architecture, *tags]:
            config = timm.get_pretrained_cfg(name)
            if config is None or config.num_classes < 1:
                continue  # without a softmax there is no loss to sample labels for, and nothing to report
            key = (config.num_classes, config.input_size)
            if key not in shapes:
                with torch.device("meta"):
                    shapes[key] = describe(timm.create_model(name), config.input_size)
            if shapes[key].layers:
                facts = {
                    "architecture": architecture,
                    "input_size": config.input_size,
                    "num_classes": config.num_classes,
                }
                yield name, facts, shapes[key]


def sample_entries() -> Iterator[tuple[str, dict[str, Any], ModelShape]]:
    for path in sorted(SAMPLES.glob(f"*/{CONFIG}")):
        config = read_config(path.parent)
        input_size = config.preprocessing.input_size
        with torch.device("meta"):
            model = timm.create_model(config.architecture, **config.kwargs)
        facts = {
            "architecture": config.architecture,
            "input_size": input_size,
            "num_classes": model.num_classes,
        }
        yield f"sample:{path.parent.name}", facts, describe(model, input_size)


def build() -> dict[str, Any]:
    models: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    known: dict[str, str] = {}
    for name, facts, shape in [*sample_entries(), *timm_entries()]:
        key = known.setdefault(shape.model_dump_json(), name)
        if key == name:
            shapes[key] = fold(shape)
        models[name] = facts | {"shape": key}
    return {"timm": timm.__version__, "models": models, "shapes": shapes}


def fold(shape: ModelShape) -> dict[str, Any]:
    """Runs of blocks with equal layers, stored once with ``{}`` for the index; ``core.catalog`` unfolds them."""
    groups: list[dict[str, Any]] = []
    for index, members in groupby(shape.layers, key=lambda layer: _block(layer.path)):
        layers = [layer.model_dump() | {"path": _template(layer.path, index)} for layer in members]
        if groups and index is not None and groups[-1]["layers"] == layers:
            groups[-1]["blocks"].append(index)
        else:
            groups.append({"blocks": [index if index is not None else 0], "layers": layers})
    totals = {"parameters": shape.parameters, "macs": shape.macs, "left_dense": shape.left_dense}
    return {"totals": totals, "groups": groups}


def _block(path: str) -> int | None:
    parts = path.split(".")
    return int(parts[1]) if parts[0] == "blocks" else None


def _template(path: str, index: int | None) -> str:
    return path if index is None else path.replace(f"blocks.{index}.", "blocks.{}.", 1)


if __name__ == "__main__":
    catalog = build()
    DATA.write_text(json.dumps(catalog, separators=(",", ":")) + "\n")
    print(f"{len(catalog['models'])} models of {len(catalog['shapes'])} shapes → {DATA.name}")  # noqa: T201
