import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_vit import CLASSES, Make
from torch import Tensor, nn

import vitpress
from core import distill as core_distill
from core import measure, pipeline
from core.artifact import export
from core.data import Splits
from core.errors import DatasetError, NothingToCompressError, UnreachableTargetError
from core.evidence import Evidence
from core.pipeline import Compressed, compress
from core.progress import Progress, Stage
from core.recipe import ActivationSvdRecipe, AnyRecipe, Finetune, FisherRecipe, SvdMagnitudeRecipe
from core.report import Report
from examples import CONFIG

Batches = list[tuple[Tensor, Tensor]]

pytestmark = pytest.mark.long
FISHER = FisherRecipe(target_ratio=0.5, calibration_images=64)


@pytest.fixture(autouse=True)
def _short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)


def logits(model: nn.Module, batches: Batches) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(images) for images, _ in batches])


class TestCompress:
    @pytest.mark.parametrize("recipe", [FISHER, SvdMagnitudeRecipe(target_ratio=0.5, calibration_images=64)])
    def test_removes_what_was_asked_for(self, vit: nn.Module, batches: Batches, recipe: FisherRecipe) -> None:
        done = compress(vit, recipe, batches)
        before, after = (sum(p.numel() for p in model.parameters()) for model in (vit, done.model))
        assert abs(1 - after / before - 0.5) <= 0.01
        assert (done.plan.parameters_before, done.plan.parameters_after) == (before, after)
        assert done.report.constraint.met
        assert done.report.constraint.achieved == pytest.approx(1 - after / before)
        assert done.report.after.macs == done.plan.macs_after < done.report.before.macs

    def test_leaves_the_model_as_it_was(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        vit.train()
        compress(vit, FISHER, batches)
        assert vit.training
        torch.testing.assert_close(vit.state_dict(), before)

    def test_repeats_itself_with_the_same_seed(self, vit: nn.Module, batches: Batches) -> None:
        first, again = (compress(vit, FISHER, batches) for _ in range(2))
        assert first.plan == again.plan
        torch.testing.assert_close(logits(first.model, batches), logits(again.model, batches))

    def test_stays_closer_to_the_original_than_the_baseline(self, vit: nn.Module, batches: Batches) -> None:
        ours, plain = (
            compress(vit, recipe, batches).report.change.kl_nats
            for recipe in (FISHER, SvdMagnitudeRecipe(target_ratio=0.5, calibration_images=64))
        )
        assert ours < 0.5 * plain

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"class_token": False, "global_pool": "avg"},
            {"init_values": 0.5, "reg_tokens": 3},
            {"qk_norm": True},
            {"qkv_bias": False},
            {"global_pool": "map"},
            {"scale_mlp_norm": True},
        ],
    )
    def test_works_on_the_variants_of_the_architecture(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        recipe = FISHER.model_copy(update={"target_ratio": 0.15})
        done = compress(model, recipe, batches)
        assert done.report.constraint.met
        assert logits(done.model, batches).isfinite().all()
        assert done.report.change.kl_nats < 0.5

    def test_survives_a_channel_with_massive_activations(self, vit: nn.Module, batches: Batches) -> None:
        vit.get_parameter("blocks.0.mlp.fc2.bias").data[5] = 300.0
        done = compress(vit, FISHER, batches)
        assert logits(done.model, batches).isfinite().all()
        assert done.report.change.kl_nats < 0.5


class TestBudgets:
    def test_of_zero_leave_their_pool_alone(self, vit: nn.Module, batches: Batches) -> None:
        recipe = FISHER.model_copy(update={"target_ratio": 0.2, "rank_budget": 0.0})
        plan = compress(vit, recipe, batches).plan
        assert {layer.kind for layer in plan.layers} == {"dense", "feed_forward"}
        assert all(layer.kind == "dense" for layer in plan.layers if "attn" in layer.path)
        recipe = FISHER.model_copy(update={"target_ratio": 0.1, "prune_budget": 0.0})
        plan = compress(vit, recipe, batches).plan
        assert {layer.kind for layer in plan.layers} == {"dense", "attention"}
        assert all(layer.kind == "dense" for layer in plan.layers if "mlp" in layer.path)

    def test_that_cannot_be_met_are_refused_before_any_work(self, vit: nn.Module, batches: Batches) -> None:
        heard: list[Progress] = []
        recipe = FISHER.model_copy(update={"rank_budget": 0.0, "prune_budget": 0.1})
        with pytest.raises(UnreachableTargetError) as error:
            compress(vit, recipe, batches, heard.append)
        assert 0 < error.value.reachable < 0.5
        assert [each.fraction for each in heard] == [0.0]


class TestFineTuning:
    @pytest.mark.parametrize("method", [FisherRecipe, ActivationSvdRecipe])
    def test_is_judged_by_images_that_nothing_before_it_saw(
        self, vit: nn.Module, batches: Batches, monkeypatch: pytest.MonkeyPatch, method: type[AnyRecipe]
    ) -> None:
        seen: list[Tensor] = []
        vit.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].clone()))
        judging: list[Tensor] = []
        before_tuning: list[Tensor] = []

        def tune(student: nn.Module, teacher: nn.Module, *given: Any, **settings: Any) -> core_distill.Distilled:
            _, held_out, _ = given
            judging.extend(image for images, _ in held_out for image in images)
            before_tuning.extend(seen)
            return core_distill.distill(student, teacher, *given, **settings)

        monkeypatch.setattr(pipeline, "distill", tune)
        compress(vit, method(target_ratio=0.5, calibration_images=64, finetune=Finetune(steps=1)), batches)
        assert len(judging) == 64 // pipeline.JUDGES
        assert len(before_tuning) >= 64 - len(judging)
        assert not any(torch.equal(one, other) for one in judging for other in before_tuning)


class TestRefusals:
    def test_of_a_model_with_nothing_to_compress(self, batches: Batches) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(288, CLASSES))
        with pytest.raises(NothingToCompressError):
            compress(model, FISHER, batches)

    def test_of_labels_beyond_the_model_s_classes(self, vit: nn.Module, batches: Batches) -> None:
        wrong = [(images, labels + CLASSES) for images, labels in batches]
        with pytest.raises(DatasetError, match="labels"):
            compress(vit, FISHER, Splits(batches, [(images + 1, labels) for images, labels in wrong]))


class TestProgress:
    def test_goes_through_the_stages_in_order(self, vit: nn.Module, batches: Batches) -> None:
        heard: list[Progress] = []
        report = compress(vit, FISHER, batches, heard.append).report
        stages = list(dict.fromkeys(each.stage for each in heard))
        assert stages == [Stage.CALIBRATE, Stage.COMPRESS, Stage.EVALUATE]
        assert all(0 <= each.fraction <= 1 for each in heard)
        for stage in stages:
            fractions = [each.fraction for each in heard if each.stage is stage]
            assert fractions == sorted(fractions)
            assert fractions[-1] == 1
        assert set(report.seconds) == set(stages)


@pytest.fixture
def compressed(batches: Batches) -> Compressed:
    import timm

    torch.manual_seed(0)
    return compress(timm.create_model(CONFIG.architecture, **CONFIG.kwargs), FISHER, batches)


class TestExport:
    def test_loads_to_a_model_with_the_same_logits(
        self, compressed: Compressed, batches: Batches, tmp_path: Path
    ) -> None:
        report = export(compressed, CONFIG, tmp_path)
        again = vitpress.load(tmp_path)
        assert not again.training
        torch.testing.assert_close(logits(again, batches), logits(compressed.model, batches), rtol=0, atol=1e-6)
        assert report.reload_max_abs_difference is not None
        assert report.reload_max_abs_difference < 1e-6

    def test_writes_the_five_files_and_nothing_else(self, compressed: Compressed, tmp_path: Path) -> None:
        report = export(compressed, CONFIG, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {
            "model.safetensors", "config.json", "plan.json", "report.json", "evidence.json"
        }  # fmt: skip
        assert Report.model_validate_json((tmp_path / "report.json").read_text()) == report
        assert Evidence.model_validate_json((tmp_path / "evidence.json").read_text()) == compressed.evidence
        assert json.loads((tmp_path / "plan.json").read_text())["version"] == 2
        assert report.after.file_bytes == (tmp_path / "model.safetensors").stat().st_size
        assert report.before.file_bytes is not None
        assert report.after.file_bytes < 0.6 * report.before.file_bytes
