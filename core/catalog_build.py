"""Write ``catalog.json`` from timm's registry and the samples: ``python -m core.catalog_build``."""

import json
import re
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

TIMM_MODULES = (  # files of timm.models whose models are Vision Transformers or hybrids with their blocks
    "vision_transformer", "vision_transformer_hybrid", "deit", "eva", "beit", "swin_transformer", "swin_transformer_v2",
    "pit", "mobilevit",
)  # fmt: skip
BLOCK = re.compile(r"(.*?\bblocks\.)(\d+)\.")
SAMPLES = Path(__file__).parents[1] / "samples"
TRAINING = "training.json"


def timm_entries() -> Iterator[tuple[str, dict[str, Any], ModelShape]]:
    """Every classifier with pretrained weights that has something to compress, built without memory on "meta"."""
    tagged: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        tagged.setdefault(name.split(".")[0], []).append(name)
    for architecture in timm.list_models(module=list(TIMM_MODULES)):
        shapes: dict[tuple[object, ...], ModelShape] = {}
        tags = tagged.get(architecture, [])
        for name in tags[:1] and [architecture, *tags]:
            config = timm.get_pretrained_cfg(name)
            if config is None or config.num_classes < 1:
                continue  # without a softmax there is no loss to sample labels for, and nothing to report
            key = (config.num_classes, config.input_size)
            if key not in shapes:
                with torch.device("meta"):
                    model = timm.create_model(name)
                shapes[key] = describe(model, config.input_size)
            if shapes[key].layers:
                facts = {
                    "architecture": architecture,
                    "input_size": config.input_size,
                    "num_classes": config.num_classes,
                }
                yield name, facts, shapes[key]


def sample_entries() -> Iterator[tuple[str, dict[str, Any], ModelShape]]:
    """Name, facts and shape of each model in ``samples/``, built without memory."""
    for path in sorted(SAMPLES.glob(f"*/{CONFIG}")):
        config = read_config(path.parent)
        input_size = config.preprocessing.input_size
        with torch.device("meta"):
            model = timm.create_model(config.architecture, **config.kwargs)
        facts = {
            "architecture": config.architecture,
            "input_size": input_size,
            "num_classes": model.num_classes,
            "dataset": f"sample:{json.loads((path.parent / TRAINING).read_text())['dataset']}",
        }
        yield f"sample:{path.parent.name}", facts, describe(model, input_size)


def build() -> dict[str, Any]:
    """The whole catalogue, as ``core/catalog.json`` holds it: models of one shape share it."""
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
    for (before, index), members in groupby(shape.layers, key=lambda layer: _block(layer.path)):
        layers = [layer.model_dump() | {"path": _template(layer.path, before, index)} for layer in members]
        if groups and before and groups[-1]["layers"] == layers:
            groups[-1]["blocks"].append(index)
        else:
            groups.append({"blocks": [index], "layers": layers})
    totals = {"parameters": shape.parameters, "macs": shape.macs, "left_dense": shape.left_dense}
    return {"totals": totals, "groups": groups}


def _block(path: str) -> tuple[str, int]:
    """What a path has before its block's index, ``layers.2.blocks.`` say, and the index."""
    found = BLOCK.match(path)
    return (found[1], int(found[2])) if found else ("", 0)


def _template(path: str, before: str, index: int) -> str:
    return path.replace(f"{before}{index}.", f"{before}{{}}.", 1) if before else path


if __name__ == "__main__":
    catalog = build()
    DATA.write_text(json.dumps(catalog, separators=(",", ":")) + "\n")
    print(f"{len(catalog['models'])} models of {len(catalog['shapes'])} shapes → {DATA.name}")  # noqa: T201
