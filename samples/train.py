"""Train a sample model from scratch: ``python -m samples.train NAME OUT_DIR``.

Writes ``model.safetensors``, ``config.json`` (architecture, keyword arguments, preprocessing, class names) and
``training.json`` (settings, accuracy by epoch). Minutes to an hour on a CPU core or two; ``MODELS`` says of what.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from samples.sources import SOURCES, load

SEED = 0
LEARNING_RATES = {"muon": 3e-3, "adamw": 1e-3}
WEIGHT_DECAY = 0.05
TOP1_IMAGES = 2000  # of the test images, for the accuracy by epoch; the final one is of all


@dataclass(frozen=True)
class Training:
    """One sample model. ``architecture`` is the registry entry whose class ``kwargs`` reshapes.

    An image is flipped if ``flip``, half of the time, and shifted by up to ``shift`` pixels.
    """

    source: str
    architecture: str
    kwargs: dict[str, Any]
    epochs: int
    batch: int = 128
    flip: bool = False
    shift: int = 2


MODELS = {
    # Without a class token it learns faster: Beyer et al. 2022, arXiv 2205.01580.
    "vit_fmnist": Training(
        source="fashion-mnist", architecture="vit_tiny_patch16_224", epochs=12, flip=True,
        kwargs={
            "img_size": 28, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 128, "depth": 6,
            "num_heads": 4, "class_token": False, "global_pool": "avg",
        },
    ),
    # As DINOv2: class token, registers, layer scale, which starts larger than theirs because the training is short.
    "vit_digits": Training(
        source="digits", architecture="vit_small_patch14_reg4_dinov2", epochs=120, batch=64, shift=1,
        kwargs={
            "img_size": 8, "patch_size": 2, "in_chans": 1, "num_classes": 10, "embed_dim": 96, "depth": 6,
            "num_heads": 4, "reg_tokens": 4, "init_values": 0.1, "global_pool": "token",
        },
    ),
    # As DINOv3 S+: rotary positions, SwiGLU, class token, registers, layer scale, attention without biases.
    "eva_fmnist": Training(
        source="fashion-mnist", architecture="vit_small_plus_patch16_dinov3", epochs=6, flip=True,
        kwargs={
            "img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10, "embed_dim": 96, "depth": 6,
            "num_heads": 4, "init_values": 0.1, "global_pool": "token",
        },
    ),
}  # fmt: skip


def augment(images: Tensor, training: Training, blank: float, generator: torch.Generator) -> Tensor:
    """Flip and shift each image on its own; ``blank`` comes in. ``(batch, 1, height, width)`` in and out."""
    count, _, height, width = images.shape
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5 * training.flip
    shift = training.shift
    padded = F.pad(torch.where(flip, images.flip(-1), images), (shift,) * 4, value=blank)
    dy, dx = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator)
    rows, columns = dy + torch.arange(height), dx + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


@torch.inference_mode()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    answers = torch.cat([model(batch).argmax(-1) for batch in images.split(1000)])
    return (answers == labels).double().mean().item()


def train(training: Training, out: Path) -> None:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = load(training.source, "train")
    test_images, test_labels = load(training.source, "test")
    blank = -SOURCES[training.source].mean / SOURCES[training.source].std
    batch, shown = training.batch, min(TOP1_IMAGES, len(test_images))
    model = timm.create_model(training.architecture, **training.kwargs)
    # Muon (Jordan et al. 2024) needs about half of AdamW's epochs here; it is for the blocks' matrices alone.
    matrices = [p for p in model.get_submodule("blocks").parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not each for each in matrices)]
    optimizers = {
        "muon": torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(others, weight_decay=0.0),
    }
    steps, step = training.epochs * (len(images) // batch), 0
    warmup = steps // 20
    history = []
    for epoch in range(training.epochs):
        started = time.monotonic()
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for picked in order[: len(order) // batch * batch].split(batch):
            progress = max(0.0, (step - warmup) / (steps - warmup))
            factor = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = LEARNING_RATES[name] * factor
            logits = model(augment(images[picked], training, blank, generator))
            loss = F.cross_entropy(logits, labels[picked], label_smoothing=0.1)
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers.values():
                optimizer.step()
            step += 1
        accuracy = top1(model, test_images[:shown], test_labels[:shown])
        history.append({"epoch": epoch + 1, "loss": round(loss.item(), 4), f"top1_first_{shown}": accuracy})
        print(f"{history[-1]} {time.monotonic() - started:.0f} s", flush=True)
        save_file(model.state_dict(), out / "model.safetensors")
    result = {
        "top1": top1(model, test_images, test_labels), "test_images": len(test_labels), "dataset": training.source,
        "seed": SEED, "batch": batch,
        "learning_rates": LEARNING_RATES, "weight_decay": WEIGHT_DECAY, "history": history,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"top-1 {result['top1']:.2%} on {len(test_labels)} test images")


def write_config(training: Training, out: Path) -> None:
    source, size = SOURCES[training.source], training.kwargs["img_size"]
    config = {
        "architecture": training.architecture,
        "kwargs": training.kwargs,
        "preprocessing": {
            "input_size": [training.kwargs["in_chans"], size, size],
            "mean": [source.mean], "std": [source.std],
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
        },
        "class_names": list(source.classes),
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    write_config(MODELS[arguments.name], out)
    train(MODELS[arguments.name], out)


if __name__ == "__main__":
    main()
