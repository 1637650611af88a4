import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import vitpress
from vitpress.artifact import ArtifactError, ModelConfig, Preprocessing, apply_plan_, save
from vitpress.plan import LowRank, Plan, Width

CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    kwargs={"img_size": 12, "patch_size": 4, "in_chans": 2, "embed_dim": 24, "depth": 2, "num_classes": 7},
    preprocessing=Preprocessing(input_size=(2, 12, 12), mean=(0.5, 0.5), std=(0.5, 0.5)),
)
PLAN = Plan(
    parameters_before=1,
    parameters_after=1,
    macs_before=1,
    macs_after=1,
    layers=(
        LowRank(
            path="blocks.1.attn.qkv", in_features=24, out_features=72, rank=5,
            parameters_before=1, parameters_after=1, predicted_loss=None,
        ),
        Width(
            path="blocks.0.mlp", width_before=96, width=13,
            parameters_before=1, parameters_after=1, predicted_loss=None,
        ),
    ),
)  # fmt: skip


def small_model(plan: Plan | None) -> nn.Module:
    model: nn.Module = timm.create_model(CONFIG.architecture, **CONFIG.kwargs)
    if plan is not None:
        apply_plan_(model, plan)
    return model.eval()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    save(small_model(PLAN), CONFIG, PLAN, tmp_path)
    return tmp_path


class TestLoad:
    @pytest.mark.parametrize("plan", [None, PLAN])
    def test_gives_the_model_that_was_saved(self, tmp_path: Path, plan: Plan | None) -> None:
        model = small_model(plan)
        save(model, CONFIG, plan, tmp_path)
        again = vitpress.load(tmp_path)
        images = torch.randn(3, 2, 12, 12)
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)
        assert not again.training

    def test_rebuilds_the_shapes_of_the_plan(self, artifact: Path) -> None:
        model = vitpress.load(artifact)
        assert model.get_parameter("blocks.1.attn.qkv.0.weight").shape == (5, 24)
        assert model.get_parameter("blocks.1.attn.qkv.1.weight").shape == (72, 5)
        assert model.get_parameter("blocks.0.mlp.fc1.weight").shape == (13, 24)
        assert model.get_parameter("blocks.0.mlp.fc2.weight").shape == (24, 13)


class TestBrokenArtifacts:
    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_without_a_file_are_refused(self, artifact: Path, name: str) -> None:
        (artifact / name).unlink()
        with pytest.raises(ArtifactError, match=name):
            vitpress.load(artifact)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "plan.json"])
    def test_with_a_file_that_says_something_else_are_refused(self, artifact: Path, name: str) -> None:
        (artifact / name).write_bytes(b"\x80\x04\x95 a pickle, perhaps")
        with pytest.raises(ArtifactError):
            vitpress.load(artifact)

    def test_with_weights_that_do_not_fit_the_plan_are_refused(self, artifact: Path) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        plan["layers"][1]["width"] = 17
        (artifact / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(ArtifactError, match="size mismatch"):
            vitpress.load(artifact)

    def test_with_a_plan_for_a_layer_that_is_not_there_are_refused(self, artifact: Path) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        plan["layers"][1]["path"] = "blocks.7.mlp"
        (artifact / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(ArtifactError, match="7"):
            vitpress.load(artifact)

    @pytest.mark.parametrize("version", [0, 2, "1"])
    def test_of_another_version_are_refused(self, artifact: Path, version: object) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        (artifact / "plan.json").write_text(json.dumps(plan | {"version": version}))
        with pytest.raises(ArtifactError, match="version"):
            vitpress.load(artifact)


class TestConfigs:
    @pytest.mark.parametrize("architecture", ["hf-hub:someone/model", "local-dir:/tmp/x", "../vit", "", "no_such_vit"])
    def test_that_name_no_architecture_are_refused(self, artifact: Path, architecture: str) -> None:
        config = json.loads((artifact / "config.json").read_text())
        (artifact / "config.json").write_text(json.dumps(config | {"architecture": architecture}))
        with pytest.raises(ArtifactError):
            vitpress.load(artifact)

    @pytest.mark.parametrize("name", ["pretrained", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"])
    def test_that_say_where_weights_come_from_are_refused(self, artifact: Path, name: str) -> None:
        config = json.loads((artifact / "config.json").read_text())
        config["kwargs"][name] = "pickle.pth"
        (artifact / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match=name):
            vitpress.load(artifact)
