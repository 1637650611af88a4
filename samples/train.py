"""Train the sample ViT on Fashion-MNIST from scratch: ``python -m samples.train OUT_DIR``.

Writes ``model.safetensors``, ``config.json`` (architecture, keyword arguments, preprocessing, class names) and
``training.json`` (settings, accuracy by epoch). Takes about an hour on two CPU cores.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from samples import fashion_mnist

ARCHITECTURE = "vit_tiny_patch16_224"  # the registry entry whose class the keyword arguments reshape
KWARGS: dict[str, Any] = {
    "img_size": 28, "patch_size": 4, "in_chans": 1, "num_classes": 10, "embed_dim": 128, "depth": 6, "num_heads": 4,
    "class_token": False, "global_pool": "avg",  # learns faster than a class token: Beyer et al. 2022, arXiv 2205.01580
}  # fmt: skip
SEED = 0
BATCH = 128
LEARNING_RATES = {"muon": 3e-3, "adamw": 1e-3}
WEIGHT_DECAY = 0.05
EPOCHS = 12


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, and shift by up to 2 pixels, each image on its own. ``(batch, 1, 28, 28)`` in and out."""
    count, _, height, width = images.shape
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    padded = F.pad(
        torch.where(flip, images.flip(-1), images), (2, 2, 2, 2), value=-fashion_mnist.MEAN / fashion_mnist.STD
    )
    dy, dx = torch.randint(0, 5, (2, count, 1), generator=generator)
    rows, columns = dy + torch.arange(height), dx + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


@torch.inference_mode()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    answers = torch.cat([model(batch).argmax(-1) for batch in images.split(1000)])
    return (answers == labels).double().mean().item()


def load(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    images, labels = fashion_mnist.read(split)
    pixels = torch.from_numpy(images.copy()).float().div_(255).sub_(fashion_mnist.MEAN).div_(fashion_mnist.STD)
    return pixels[:, None], torch.from_numpy(labels.copy()).long()


def train(out: Path) -> None:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = load("train")
    test_images, test_labels = load("test")
    model = timm.create_model(ARCHITECTURE, **KWARGS)
    # Muon (Jordan et al. 2024) needs about half of AdamW's epochs here; it is for the blocks' matrices alone.
    matrices = [p for p in model.get_submodule("blocks").parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not each for each in matrices)]
    optimizers = {
        "muon": torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        "adamw": torch.optim.AdamW(others, weight_decay=0.0),
    }
    steps, step = EPOCHS * (len(images) // BATCH), 0
    warmup = steps // 20
    history = []
    for epoch in range(EPOCHS):
        started = time.monotonic()
        model.train()
        order = torch.randperm(len(images), generator=generator)
        for picked in order[: len(order) // BATCH * BATCH].split(BATCH):
            progress = max(0.0, (step - warmup) / (steps - warmup))
            factor = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * progress))
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = LEARNING_RATES[name] * factor
            loss = F.cross_entropy(model(augment(images[picked], generator)), labels[picked], label_smoothing=0.1)
            model.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers.values():
                optimizer.step()
            step += 1
        accuracy = top1(model, test_images[:2000], test_labels[:2000])
        history.append({"epoch": epoch + 1, "loss": round(loss.item(), 4), "top1_first_2000": accuracy})
        print(f"{history[-1]} {time.monotonic() - started:.0f} s", flush=True)
        save_file(model.state_dict(), out / "model.safetensors")
    result = {
        "top1": top1(model, test_images, test_labels), "test_images": len(test_labels), "seed": SEED, "batch": BATCH,
        "learning_rates": LEARNING_RATES, "weight_decay": WEIGHT_DECAY, "history": history,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"top-1 {result['top1']:.2%} on {len(test_labels)} test images")


def write_config(out: Path) -> None:
    size = KWARGS["img_size"]
    config = {
        "architecture": ARCHITECTURE,
        "kwargs": KWARGS,
        "preprocessing": {
            "input_size": [KWARGS["in_chans"], size, size],
            "mean": [fashion_mnist.MEAN], "std": [fashion_mnist.STD],
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
        },
        "class_names": list(fashion_mnist.CLASSES),
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    write_config(out)
    train(out)


if __name__ == "__main__":
    main()
