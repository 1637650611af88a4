import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.data import open_splits
from core.datasets import describe
from samples import sklearn_digits
from samples.sources import SOURCES
from samples.train import MODELS, augment, write_config
from vitpress import artifact

SAMPLES = Path(__file__).parents[2] / "samples"


class TestSampleModels:
    @pytest.mark.parametrize("name", MODELS)
    def test_are_what_the_table_of_settings_says(self, name: str, tmp_path: Path) -> None:
        write_config(MODELS[name], tmp_path)
        assert (tmp_path / "config.json").read_text() == (SAMPLES / name / "config.json").read_text()

    def test_of_the_digits_gets_right_what_its_record_says(self) -> None:
        record = json.loads((SAMPLES / "vit_digits" / "training.json").read_text())
        model = artifact.load(SAMPLES / "vit_digits")
        info = describe("sample:digits", SAMPLES, None)
        images = open_splits(info, artifact.read_config(SAMPLES / "vit_digits"), 16, seed=0).evaluation
        with torch.inference_mode():
            right = sum(int((model(pixels).argmax(-1) == labels).sum()) for pixels, labels in images)
        assert right / record["test_images"] == pytest.approx(record["top1"], abs=2 / 900)  # other kernels, other ties
        assert record["top1"] >= 0.96


class TestDigits:
    def test_on_disk_are_those_of_the_source_in_two_disjoint_splits(self) -> None:
        names = {}
        for folder, split in (("calibration", "train"), ("test", "test")):
            files = sorted((SAMPLES / "digits" / folder).rglob("*.png"), key=lambda file: file.name)
            images, labels = sklearn_digits.read(split)  # type: ignore[arg-type]
            assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), images)
            assert [SOURCES["digits"].classes.index(file.parent.name) for file in files] == labels.tolist()
            names[split] = {file.name for file in files}
        assert not names["train"] & names["test"]
        assert len(names["train"]) == 897
        assert len(names["test"]) == 900


class TestAugment:
    def test_without_flips_only_shifts(self) -> None:
        training = MODELS["vit_digits"]
        image = torch.arange(64.0).view(1, 1, 8, 8) + 1
        moved = augment(image.expand(400, 1, 8, 8), training, 0.0, torch.Generator().manual_seed(0))
        padded = torch.nn.functional.pad(image[0, 0], (1, 1, 1, 1))
        possible = {
            tuple(padded[row : row + 8, column : column + 8].flatten().tolist())
            for row in range(3)
            for column in range(3)
        }
        assert {tuple(each.flatten().tolist()) for each in moved} == possible
