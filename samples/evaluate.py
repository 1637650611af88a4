"""Load an artifact and count what it gets right: ``python -m samples.evaluate DIR``.

It needs torch, timm and the light package ``vitpress`` alone, as anyone who was sent the directory would have.
"""

import argparse
from pathlib import Path

import torch
from timm.data import create_transform
from torchvision.datasets import ImageFolder

import vitpress
from vitpress.artifact import read_config

TEST = Path(__file__).parent / "fashion-mnist" / "test"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    config = read_config(directory)
    assert config.class_names is not None
    transform = create_transform(**config.preprocessing.model_dump(), is_training=False)
    images = ImageFolder(str(TEST), transform=lambda image: transform(image.convert("L")))
    names = [config.class_names.index(name) for name in images.classes]

    model = vitpress.load(directory)
    right = 0
    with torch.inference_mode():
        for pixels, folders in torch.utils.data.DataLoader(images, batch_size=250):
            labels = torch.tensor([names[folder] for folder in folders])
            right += int((model(pixels).argmax(-1) == labels).sum())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"loaded in a fresh process: {parameters:,} parameters, {right / len(images):.2%} of {len(images):,} images")


if __name__ == "__main__":
    main()
