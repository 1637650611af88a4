from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from core.architectures import Arguments, InputChanges, is_allowed
from core.errors import (
    ArchitectureError,
    CheckpointError,
    CheckpointMismatchError,
    NothingToCompressError,
    NumericalError,
)
from core.own_models import check, load

NAME = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {
    "img_size": 12, "patch_size": 4, "in_chans": 2, "embed_dim": 22, "depth": 3, "num_heads": 2, "num_classes": 7,
}  # fmt: skip
ARGUMENTS = Arguments(**SMALL)


def weights(**changes: Any) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(timm.create_model(NAME, **(SMALL | changes)).state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload"


class TestAccepting:
    def test_gives_the_same_function(self, path: Path) -> None:
        model = timm.create_model(NAME, **SMALL).eval()
        save_file(model.state_dict(), path)
        checked = check(path, NAME, ARGUMENTS, class_names=list("abcdefg"))
        images = torch.randn(5, 2, 12, 12)
        torch.testing.assert_close(checked.model(images), model(images))
        torch.testing.assert_close(load(path, checked.config, torch.device("cpu")).model(images), model(images))
        assert checked.converted == ()
        assert checked.config.class_names == tuple("abcdefg")
        assert checked.shape.parameters == sum(each.numel() for each in model.parameters())
        assert len(checked.shape.layers) == 6

    @pytest.mark.parametrize(("dtype", "said"), [(torch.float16, "F16"), (torch.bfloat16, "BF16")])
    def test_converts_halves_and_says_so(self, path: Path, dtype: torch.dtype, said: str) -> None:
        save_file({name: each.to(dtype) for name, each in weights().items()}, path)
        checked = check(path, NAME, ARGUMENTS)
        assert checked.converted == (said,)
        assert {each.dtype for each in checked.model.parameters()} == {torch.float32}

    def test_takes_timms_preprocessing_but_for_the_changes(self, path: Path) -> None:
        save_file(weights(), path)
        plain = check(path, NAME, ARGUMENTS).config.preprocessing
        assert (plain.input_size, plain.mean) == ((2, 12, 12), (0.5, 0.5))
        changed = check(path, NAME, ARGUMENTS, InputChanges(mean=(0.1, 0.2), crop_pct=0.8)).config.preprocessing
        assert (changed.mean, changed.std, changed.crop_pct) == ((0.1, 0.2), (0.5, 0.5), 0.8)


class TestDifferences:
    def test_are_named_by_kind(self, path: Path) -> None:
        tensors = weights()
        del tensors["blocks.1.attn.qkv.bias"]
        tensors["blocks.7.norm1.bias"] = torch.zeros(22)
        tensors["head.weight"] = torch.zeros(5, 22)
        tensors["norm.bias"] = tensors["norm.bias"].double()
        save_file(tensors, path)
        with pytest.raises(CheckpointMismatchError) as caught:
            check(path, NAME, ARGUMENTS)
        assert caught.value.differences == {
            "missing": {"total": 1, "names": ["blocks.1.attn.qkv.bias"]},
            "unexpected": {"total": 1, "names": ["blocks.7.norm1.bias"]},
            "shape": {"total": 1, "names": ["head.weight: expected [7, 22], got [5, 22]"]},
            "dtype": {"total": 1, "names": ["norm.bias: expected F32, got F64"]},
        }
        assert "blocks.1.attn.qkv.bias" in str(caught.value)

    def test_beyond_fifty_are_counted(self, path: Path) -> None:
        save_file(weights(), path)
        with pytest.raises(CheckpointMismatchError) as caught:
            check(path, NAME, Arguments(**(SMALL | {"depth": 9})))
        missing = caught.value.differences["missing"]
        assert missing["total"] == 6 * 12
        assert len(missing["names"]) == 50


class TestRefusing:
    @pytest.mark.parametrize(
        "name",
        ["hf-hub:timm/vit", "hf_hub:timm/vit", "local-dir:/etc", "/etc/passwd", "../vit", "resnet50", "", NAME + ".x"],
    )
    def test_an_architecture_outside_the_catalogue(self, path: Path, name: str) -> None:
        save_file(weights(), path)
        with pytest.raises(ArchitectureError):
            check(path, name, ARGUMENTS)

    @pytest.mark.parametrize(
        "given",
        [
            {"pretrained_cfg": {}},
            {"checkpoint_path": "/etc/passwd"},
            {"block_fn": "os.system"},
            {"depth": 10**6},
            {"embed_dim": -1},
            {"mlp_ratio": float("nan")},
            {"num_classes": 0},
            {"img_size": [1, 2, 3]},
            {"global_pool": ""},
        ],
    )
    def test_arguments_outside_the_list(self, given: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Arguments.model_validate(given)

    @pytest.mark.parametrize(
        ("given", "why"),
        [
            ({"embed_dim": 23}, "cannot be built"),
            ({"depths": (2, 2)}, "cannot be built"),
            ({"embed_dim": 16384, "depth": 256, "num_heads": 4}, "parameters"),
        ],
    )
    def test_arguments_that_fit_no_model(self, path: Path, given: dict[str, Any], why: str) -> None:
        save_file(weights(), path)
        with pytest.raises(ArchitectureError, match=why):
            check(path, NAME, Arguments(**(SMALL | given)))

    def test_values_that_are_not_finite(self, path: Path) -> None:
        tensors = weights()
        tensors["blocks.1.mlp.fc1.bias"][3] = float("nan")
        save_file(tensors, path)
        with pytest.raises(NumericalError, match=r"blocks\.1\.mlp\.fc1\.bias"):
            check(path, NAME, ARGUMENTS)

    def test_a_model_with_nothing_to_compress(self, path: Path) -> None:
        tiny = {"embed_dim": 1, "num_heads": 1, "depth": 1, "mlp_ratio": 1}
        save_file(weights(**tiny), path)
        with pytest.raises(NothingToCompressError):
            check(path, NAME, Arguments(**(SMALL | tiny)))

    def test_class_names_that_are_too_few(self, path: Path) -> None:
        save_file(weights(), path)
        with pytest.raises(ArchitectureError, match="7 classes"):
            check(path, NAME, ARGUMENTS, class_names=["a"])

    def test_images_that_the_model_does_not_take(self, path: Path) -> None:
        save_file(weights(), path)
        with pytest.raises(ArchitectureError, match="takes no image"):
            check(path, NAME, ARGUMENTS, InputChanges(input_size=(2, 13, 12)))

    def test_a_pickle(self, path: Path) -> None:
        torch.save(weights(), path)  # noqa: TID251 - to be refused
        with pytest.raises(CheckpointError, match="pickle"):
            check(path, NAME, ARGUMENTS)


class TestAllowList:
    @pytest.mark.parametrize(
        ("hub_id", "allowed"),
        [
            ("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", True),
            ("someone/vit", False),
            ("timm/../x", False),
            ("timm/a/b", False),
            ("timm", False),
            ("timm/", False),
            ("/timm/x", False),
            ("timm/x@main", False),
            ("timm/x\n", False),
        ],
    )
    def test_of_hub_ids_decides(self, hub_id: str, allowed: bool) -> None:
        assert is_allowed(hub_id, ["timm/*", "*"]) is allowed
