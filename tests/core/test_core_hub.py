from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

from core import hub
from core.errors import ArchitectureError, CheckpointError, HubNotAllowedError, HubUnreachableError
from core.own_models import check
from fake_hub import Hub

NAME = "vit_tiny_patch16_224"
MODEL_ARGS: dict[str, Any] = {
    "img_size": 12, "patch_size": 4, "embed_dim": 22, "depth": 2, "num_heads": 2,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "architecture": NAME,
    "num_classes": 5,
    "model_args": MODEL_ARGS,
    "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "input_size": [3, 12, 12], "crop_pct": 0.9, "custom_load": True},
    "label_names": list("abcde"),
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    fake = Hub()
    monkeypatch.setattr("core.hub.ENDPOINT", fake.url)
    with fake.serving():
        yield fake


def model() -> torch.nn.Module:
    torch.manual_seed(2)
    made: torch.nn.Module = timm.create_model(NAME, num_classes=5, **MODEL_ARGS).eval()
    return made


def fetch(
    directory: Path, hub_id: str = "timm/tiny", max_bytes: int = 1 << 20, token: str | None = None
) -> hub.FromHub:
    return hub.fetch(hub_id, directory, token=token, allowed=("timm/*",), max_bytes=max_bytes)


class TestFetching:
    def test_gives_a_checkpoint_that_passes_the_check(self, fake: Hub, tmp_path: Path) -> None:
        original = model()
        fake.put("timm/tiny", CONFIG, save(original.state_dict()))
        found = fetch(tmp_path, token="hf_secret")  # noqa: S106 - the peer is ours
        assert fake.tokens == {None, "Bearer hf_secret"}  # the probe sends none
        checked = check(found.weights, found.architecture, found.arguments, found.changes, found.class_names)
        images = torch.randn(3, 3, 12, 12)
        torch.testing.assert_close(checked.model(images), original(images))
        assert checked.config.preprocessing.mean == (0.1, 0.2, 0.3)
        assert checked.config.class_names == tuple("abcde")

    def test_without_a_token_sends_none(self, fake: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "of somebody else")
        fake.put("timm/tiny", CONFIG, save(model().state_dict()))
        fetch(tmp_path)
        assert fake.tokens == {None}

    def test_translates_what_timm_would(self, fake: Hub, tmp_path: Path) -> None:
        original = model()
        old = dict(original.state_dict())
        old["patch_embed.proj.weight"] = old["patch_embed.proj.weight"].flatten(1)  # as its first checkpoints had it
        fake.put("timm/tiny", CONFIG, save(old))
        found = fetch(tmp_path)
        images = torch.randn(3, 3, 12, 12)
        torch.testing.assert_close(
            check(found.weights, found.architecture, found.arguments).model(images), original(images)
        )

    def test_of_another_architectures_weights_fails(self, fake: Hub, tmp_path: Path) -> None:
        renamed = {f"backbone.{name}": each for name, each in model().state_dict().items()}
        fake.put("timm/tiny", CONFIG, save(renamed))
        with pytest.raises(CheckpointError, match="does not fit"):
            fetch(tmp_path)


class TestRefusing:
    def test_what_the_operator_does_not_allow(self, fake: Hub, tmp_path: Path) -> None:
        for hub_id in ("someone/tiny", "timm/../tiny", "timm/tiny@main", "tiny"):
            with pytest.raises(HubNotAllowedError):
                fetch(tmp_path, hub_id)
        assert not fake.tokens

    def test_a_repository_with_pickles_alone(self, fake: Hub, tmp_path: Path) -> None:
        fake.put("timm/tiny", CONFIG, None)
        fake.files["timm/tiny/pytorch_model.bin"] = b"\x80\x02"
        with pytest.raises(CheckpointError, match="other formats are not loaded"):
            fetch(tmp_path)

    def test_a_pickle_of_that_name(self, fake: Hub, tmp_path: Path) -> None:
        fake.put("timm/tiny", CONFIG, b"\x80\x02" + bytes(99))
        with pytest.raises(CheckpointError, match="pickle"):
            fetch(tmp_path)

    def test_what_is_too_large(self, fake: Hub, tmp_path: Path) -> None:
        fake.put("timm/tiny", CONFIG, bytes(2000))
        with pytest.raises(CheckpointError, match="2000 bytes"):
            fetch(tmp_path, max_bytes=1999)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"architecture": "hf-hub:timm/tiny"}, "no architecture"),
            ({"architecture": None}, "not timm's"),
            ({"model_args": {"block_fn": "x"}}, "block_fn"),
            ({"model_args": [3]}, "not timm's"),
            ({"pretrained_cfg": 3}, "not timm's"),
        ],
    )
    def test_a_config_that_is_not_plain(self, fake: Hub, tmp_path: Path, changes: dict[str, Any], why: str) -> None:
        fake.put("timm/tiny", CONFIG | changes, save(model().state_dict()))
        with pytest.raises((CheckpointError, ArchitectureError), match=why):
            fetch(tmp_path)

    def test_a_hub_that_has_no_such_repository(self, fake: Hub, tmp_path: Path) -> None:
        with pytest.raises(HubUnreachableError, match="has no timm/other"):
            fetch(tmp_path, "timm/other")

    def test_a_hub_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("core.hub.ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(HubUnreachableError, match="could not be fetched"):
            fetch(tmp_path)
