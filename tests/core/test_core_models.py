from pathlib import Path

import pytest
import torch

from core.errors import HubUnreachableError, UnknownModelError
from core.models import load

SAMPLES = Path(__file__).parents[2] / "samples"
CPU = torch.device("cpu")


class TestLoad:
    def test_of_a_sample_gives_its_weights_and_classes(self) -> None:
        loaded = load("sample:vit_fmnist", SAMPLES, CPU)
        assert loaded.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        assert loaded.config.class_names is not None
        assert loaded.config.class_names[9] == "ankle-boot"

    @pytest.mark.parametrize("name", ["sample:../secrets", "hf-hub:someone/model", "vit_no_such"])
    def test_of_a_name_outside_the_catalogue_is_refused(self, name: str) -> None:
        with pytest.raises(UnknownModelError):
            load(name, SAMPLES, CPU)

    def test_without_a_hub_fails_and_does_not_hang(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("core.models.constants.ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr("core.models.try_to_load_from_cache", lambda *_: None)
        with pytest.raises(HubUnreachableError, match="vit_tiny_patch16_224"):
            load("vit_tiny_patch16_224", SAMPLES, CPU)
