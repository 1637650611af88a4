import json
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import examples
import vitpress
from vitpress.artifact import ArtifactError, apply_plan_, save
from vitpress.layers import Pivoted
from vitpress.plan import Attention, Dense, FeedForward, LowRank, LowRankSparse, Plan

CONFIG = examples.CONFIG.model_copy(
    update={"kwargs": examples.CONFIG.kwargs | {"global_pool": "map", "class_token": False}}
)
COUNTS = {"parameters_before": 1, "parameters_after": 1, "predicted_loss": None}
PLAN = Plan(
    parameters_before=1,
    parameters_after=1,
    macs_before=1,
    macs_after=1,
    layers=(
        Attention(
            path="blocks.1.attn", in_features=24, out_features=24, heads_before=3, heads=2, head_dim_before=8,
            qk_dim=5, v_dim=7, qkv_rank=11, **COUNTS,
        ),
        FeedForward(path="blocks.0.mlp", in_features=24, out_features=24, width_before=96, width=13, **COUNTS),
        FeedForward(
            path="blocks.1.mlp", in_features=24, out_features=24, width_before=96, width=17, fc1_rank=3, fc2_rank=5,
            **COUNTS,
        ),
        Dense(path="blocks.0.attn", **COUNTS),
        LowRank(path="attn_pool.kv", in_features=24, out_features=48, rank=5, **COUNTS),
        LowRankSparse(path="attn_pool.proj", in_features=24, out_features=24, rank=3, neurons=2, **COUNTS),
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


class TestAPlanOfTheFirstVersion:
    """Its factorised maps have both matrices whole."""

    def test_is_loaded_as_it_was_saved(self, tmp_path: Path) -> None:
        plan = PLAN.model_copy(update={"version": 1})
        model = small_model(plan)
        assert model.get_submodule("blocks.1.mlp.fc1.1").get_parameter("weight").shape == (17, 3)
        assert small_model(PLAN).get_submodule("blocks.1.mlp.fc1.1").get_parameter("weight").shape == (14, 3)
        save(model, CONFIG, plan, tmp_path)
        images = torch.randn(3, 2, 12, 12)
        torch.testing.assert_close(vitpress.load(tmp_path)(images), model(images), rtol=0, atol=0)


class TestPivoted:
    """The second of two maps in place of one: three of its seven outputs are its inputs."""

    @pytest.fixture
    def pivoted(self) -> Pivoted:
        module = Pivoted(3, 7)
        with torch.no_grad():
            module.weight.copy_(torch.randn(4, 3))
            module.bias.copy_(torch.randn(7))
            module.get_buffer("order").copy_(torch.tensor([3, 0, 4, 2, 5, 6, 1]))
        return module

    def expected(self, module: Pivoted, z: torch.Tensor) -> torch.Tensor:
        a, b, c = z.unbind(-1)
        rows = [z @ row for row in module.weight]
        return torch.stack([rows[0], a, rows[1], c, rows[2], rows[3], b], -1) + module.bias

    def test_gives_its_inputs_and_maps_of_them(self, pivoted: Pivoted) -> None:
        z = torch.randn(5, 2, 3)
        torch.testing.assert_close(pivoted(z), self.expected(pivoted, z))
        assert sum(each.numel() for each in pivoted.parameters()) == (7 - 3) * 3 + 7

    def test_sees_at_once_what_its_weights_become(self, pivoted: Pivoted) -> None:
        z = torch.randn(5, 3)
        with torch.inference_mode():
            torch.testing.assert_close(pivoted(z), self.expected(pivoted, z))
        with torch.no_grad():
            pivoted.weight.mul_(2)
            torch.testing.assert_close(pivoted(z), self.expected(pivoted, z))
            pivoted.get_buffer("order").copy_(torch.tensor([0, 3, 4, 2, 5, 6, 1]))
            torch.testing.assert_close(pivoted(z)[:, 0] - pivoted.bias[0], z[:, 0])
            pivoted.load_state_dict(
                {name: each * 3 for name, each in pivoted.state_dict().items() if name != "order"}, strict=False
            )
            torch.testing.assert_close(pivoted(z)[:, 1], z @ pivoted.weight[0] + pivoted.bias[1])
            assert pivoted.double()(z.double()).dtype == torch.float64

    def test_learns_also_after_it_was_asked_without_gradients(self, pivoted: Pivoted) -> None:
        z = torch.randn(5, 3, requires_grad=True)
        with torch.inference_mode():
            pivoted(z)
        pivoted(z).square().sum().backward()
        assert pivoted.weight.grad is not None
        assert z.grad is not None
        pivoted.requires_grad_(False)
        with torch.inference_mode():
            pivoted(z)
        pivoted(z).sum().backward()  # to what comes before it, though it is frozen itself

    def test_of_more_pivots_than_outputs_is_none(self) -> None:
        with pytest.raises(ValueError, match="8 pivots among 7"):
            Pivoted(8, 7)

    def test_is_exported(self, pivoted: Pivoted) -> None:
        z = torch.randn(5, 3)
        exported = torch.export.export(pivoted.eval(), (z,)).module()
        torch.testing.assert_close(exported(z), self.expected(pivoted, z))


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
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        expected = {
            "blocks.1.attn.qkv.0.weight": (11, 24),
            "blocks.1.attn.qkv.1.weight": (2 * (5 + 5 + 7) - 11, 11),
            "blocks.1.attn.proj.weight": (24, 2 * 7),
            "blocks.0.mlp.fc1.weight": (13, 24),
            "blocks.0.mlp.fc2.weight": (24, 13),
            "blocks.1.mlp.fc1.1.weight": (17 - 3, 3),
            "blocks.1.mlp.fc2.0.weight": (5, 17),
            "blocks.0.attn.qkv.weight": (72, 24),
            "attn_pool.kv.0.weight": (5, 24),
            "attn_pool.proj.second.weight": (24, 3),
            "attn_pool.proj.sparse.weight": (2, 24),
        }
        assert {name: shapes[name] for name in expected} == expected

    def test_remembers_which_heads_and_outputs_are_left(self, tmp_path: Path) -> None:
        model = small_model(PLAN)
        model.get_buffer("blocks.1.attn.kept").copy_(torch.tensor([0, 2]))
        model.get_buffer("attn_pool.proj.neurons").copy_(torch.tensor([19, 3]))
        save(model, CONFIG, PLAN, tmp_path)
        again = vitpress.load(tmp_path)
        assert again.get_buffer("blocks.1.attn.kept").tolist() == [0, 2]
        assert again.get_buffer("attn_pool.proj.neurons").tolist() == [19, 3]

    def test_remembers_which_channels_a_block_reads(self, tmp_path: Path) -> None:
        attn, mlp, *others = PLAN.layers
        reading = PLAN.model_copy(
            update={
                "layers": (attn.model_copy(update={"inputs": 3}), mlp.model_copy(update={"inputs": 2}), *others),
            }
        )
        model = small_model(reading)
        model.get_buffer("blocks.1.attn.inputs").copy_(torch.tensor([1, 7, 20]))
        model.get_buffer("blocks.0.mlp.inputs").copy_(torch.tensor([4, 5]))
        save(model, CONFIG, reading, tmp_path)
        again = vitpress.load(tmp_path)
        assert again.get_submodule("blocks.1.attn.qkv.0").get_parameter("weight").shape == (11, 3)
        x, block = torch.randn(2, 10, 24), again.get_submodule("blocks.0.mlp")
        elsewhere = x.clone()
        elsewhere[..., 6:] += 1
        torch.testing.assert_close(block(x), block(elsewhere))
        elsewhere[..., 4] += 1
        assert (block(x) - block(elsewhere)).abs().max() > 0


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

    def test_with_a_plan_for_a_layer_of_another_kind_are_refused(self, artifact: Path) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        plan["layers"][1]["path"] = "blocks.0.attn"
        (artifact / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(ArtifactError, match="not about"):
            vitpress.load(artifact)

    @pytest.mark.parametrize("size", [0, -3])
    def test_with_a_size_below_one_are_refused(self, artifact: Path, size: int) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        plan["layers"][0]["heads"] = size
        (artifact / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(ArtifactError, match="heads"):
            vitpress.load(artifact)

    def test_with_a_rank_above_the_outputs_are_refused(self, artifact: Path) -> None:
        plan = json.loads((artifact / "plan.json").read_text())
        plan["layers"][4]["rank"] = 49
        (artifact / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(ArtifactError, match="49 pivots among 48"):
            vitpress.load(artifact)

    @pytest.mark.parametrize("version", [0, 3, "1"])
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
