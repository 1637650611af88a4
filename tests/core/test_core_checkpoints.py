"""Checkpoints of a whole compression: kept in a directory, and gone on from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core import deciding, measure
from core.checkpoints import InDirectory
from core.pipeline import Compressed, compress, sweep
from core.progress import Progress, Stage
from core.recipe import (
    AnyRecipe,
    Finetune,
    FisherRecipe,
    HybridRecipe,
    LoSparseRecipe,
    SvdMagnitudeRecipe,
    VtpRecipe,
)

Batches = list[tuple[Tensor, Tensor]]

pytestmark = pytest.mark.long
FINETUNE = Finetune(steps=9, batch_size=16, checkpoint_seconds=1e-9)
FISHER = FisherRecipe(target_ratio=0.5, calibration_images=64, finetune=FINETUNE)
BASELINE = SvdMagnitudeRecipe(target_ratio=0.4, calibration_images=64, finetune=FINETUNE)


@pytest.fixture(autouse=True)
def _short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)


class _CutOffError(Exception):
    pass


def interrupted(
    vit: nn.Module,
    recipe: AnyRecipe,
    batches: Batches,
    directory: Path,
    stage: Stage = Stage.FINETUNE,
    after: float = 0.5,
) -> None:
    def cut_off(progress: Progress) -> None:
        if progress.stage is stage and progress.fraction >= after:
            raise _CutOffError

    with pytest.raises(_CutOffError):
        sweep(vit, recipe, batches, cut_off, InDirectory(directory))


class TestACompression:
    @pytest.mark.parametrize("recipe", [FISHER, BASELINE])
    def test_goes_on_where_it_was_cut_off_and_compresses_nothing_again(
        self, vit: nn.Module, batches: Batches, recipe: AnyRecipe, tmp_path: Path
    ) -> None:
        undisturbed = compress(vit, recipe, batches)
        interrupted(vit, recipe, batches, tmp_path)
        heard: list[Progress] = []
        resumed = compress(vit, recipe, batches, heard.append, InDirectory(tmp_path))

        assert list(dict.fromkeys(each.stage for each in heard)) == [Stage.CALIBRATE, Stage.FINETUNE, Stage.EVALUATE]
        assert [each.fraction for each in heard if each.stage is Stage.CALIBRATE] == [0.0]
        assert steps_done_before(resumed) == 5
        assert resumed.plan == undisturbed.plan
        assert resumed.evidence.spectra == undisturbed.evidence.spectra
        torch.testing.assert_close(resumed.model.state_dict(), undisturbed.model.state_dict(), rtol=0, atol=0)

    def test_of_another_recipe_starts_anew(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        interrupted(vit, FISHER, batches, tmp_path)
        other = FISHER.model_copy(update={"target_ratio": 0.3})
        heard: list[Progress] = []
        done = compress(vit, other, batches, heard.append, InDirectory(tmp_path))
        assert Stage.COMPRESS in {each.stage for each in heard}
        assert (steps_done_before(done), done.report.constraint.met) == (None, True)

    def test_without_fine_tuning_goes_on_with_the_model_that_it_had(
        self, vit: nn.Module, batches: Batches, tmp_path: Path
    ) -> None:
        recipe = FISHER.model_copy(update={"finetune": None})
        interrupted(vit, recipe, batches, tmp_path, Stage.EVALUATE, after=0.0)
        heard: list[Progress] = []
        resumed = compress(vit, recipe, batches, heard.append, InDirectory(tmp_path))
        assert list(dict.fromkeys(each.stage for each in heard)) == [Stage.CALIBRATE, Stage.EVALUATE]
        undisturbed = compress(vit, recipe, batches)
        assert (resumed.plan, resumed.report.finetune) == (undisturbed.plan, None)
        assert resumed.report.self_check == undisturbed.report.self_check
        torch.testing.assert_close(resumed.model.state_dict(), undisturbed.model.state_dict(), rtol=0, atol=0)

    def test_of_a_sweep_goes_on_with_the_models_that_it_had(
        self, vit: nn.Module, batches: Batches, tmp_path: Path
    ) -> None:
        recipe = FisherRecipe(target_ratios=(0.3, 0.4, 0.5), calibration_images=64)
        undisturbed = sweep(vit, recipe, batches)
        interrupted(vit, recipe, batches, tmp_path, Stage.COMPRESS, after=0.7)  # in the second of three
        last = InDirectory(tmp_path).load()
        assert last is not None
        assert {each.name for each in last.iterdir()} == {"0-compressed.json", "0-compressed.safetensors"}
        resumed = sweep(vit, recipe, batches, checkpoints=InDirectory(tmp_path))
        for one, other in zip(resumed, undisturbed, strict=True):
            assert (one.plan, one.report.self_check) == (other.plan, other.report.self_check)
            torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)

    def test_reports_the_model_that_it_gives(self, vit: nn.Module, batches: Batches) -> None:
        """The fine-tuned one is what is evaluated, and it removes what was asked for."""
        plain = compress(vit, BASELINE.model_copy(update={"finetune": None}), batches)
        longer = FINETUNE.model_copy(update={"steps": 40})
        tuned = compress(vit, BASELINE.model_copy(update={"finetune": longer}), batches)
        assert tuned.report.finetune is not None
        assert tuned.report.finetune.kept == "tuned"
        assert tuned.report.change.kl_nats < plain.report.change.kl_nats
        assert tuned.plan == plain.plan
        assert sum(each.numel() for each in tuned.model.parameters()) == tuned.plan.parameters_after
        assert "finetune" in tuned.report.seconds


TRAINED: dict[str, Any] = {"target_ratio": 0.4, "calibration_images": 64, "epochs": 6, "batch_size": 16}


class TestAMethodThatTrains:
    """It decides in the stage ``compress`` what goes, and that takes long."""

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deciding, "CHECKPOINT_SECONDS", 1e-9)

    @pytest.mark.parametrize(
        ("method", "finetune"), [(VtpRecipe, None), (VtpRecipe, FINETUNE), (HybridRecipe, None), (LoSparseRecipe, None)]
    )
    def test_goes_on_where_it_was_cut_off_and_ends_as_an_undisturbed_one(
        self, vit: nn.Module, batches: Batches, tmp_path: Path, method: type[AnyRecipe], finetune: Finetune | None
    ) -> None:
        recipe = method(**TRAINED, finetune=finetune)
        undisturbed = compress(vit, recipe, batches)
        interrupted(vit, recipe, batches, tmp_path, Stage.COMPRESS, after=0.5)
        heard: list[Progress] = []
        resumed = compress(vit, recipe, batches, heard.append, InDirectory(tmp_path))
        assert min(each.fraction for each in heard if each.stage is Stage.COMPRESS and each.loss is not None) > 0.5
        assert resumed.plan == undisturbed.plan
        torch.testing.assert_close(resumed.model.state_dict(), undisturbed.model.state_dict(), rtol=0, atol=0)

    def test_is_not_trained_again_once_it_is_done(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        recipe = LoSparseRecipe(**TRAINED)
        undisturbed = compress(vit, recipe, batches)
        interrupted(vit, recipe, batches, tmp_path, Stage.EVALUATE, after=0.0)
        heard: list[Progress] = []
        resumed = compress(vit, recipe, batches, heard.append, InDirectory(tmp_path))
        assert [each.loss for each in heard if each.stage is Stage.COMPRESS and each.loss is not None] == []
        torch.testing.assert_close(resumed.model.state_dict(), undisturbed.model.state_dict(), rtol=0, atol=0)

    def test_of_a_sweep_trains_none_again_that_was_done(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        recipe = VtpRecipe(**TRAINED | {"target_ratio": None, "target_ratios": (0.3, 0.4)})
        undisturbed = sweep(vit, recipe, batches)
        interrupted(vit, recipe, batches, tmp_path, Stage.COMPRESS, after=0.75)
        heard: list[Progress] = []
        resumed = sweep(vit, recipe, batches, heard.append, InDirectory(tmp_path))
        assert min(each.fraction for each in heard if each.stage is Stage.COMPRESS and each.loss is not None) > 0.5
        for one, other in zip(resumed, undisturbed, strict=True):
            torch.testing.assert_close(one.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)

    def test_of_another_recipe_starts_anew(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        interrupted(vit, VtpRecipe(**TRAINED), batches, tmp_path, Stage.COMPRESS, after=0.5)
        other = VtpRecipe(**TRAINED | {"target_ratio": 0.3})
        heard: list[Progress] = []
        resumed = compress(vit, other, batches, heard.append, InDirectory(tmp_path))
        assert min(each.fraction for each in heard if each.stage is Stage.COMPRESS and each.loss is not None) < 0.1
        torch.testing.assert_close(resumed.model.state_dict(), compress(vit, other, batches).model.state_dict())


def steps_done_before(done: Compressed) -> int | None:
    assert done.report.finetune is not None
    return done.report.finetune.resumed_from_step


class TestADirectory:
    def save(self, directory: Path, scratch: Path, content: str) -> None:
        scratch.mkdir(exist_ok=True)
        (scratch / "state.json").write_text(content)
        InDirectory(directory).save(scratch)

    def test_has_none_in_the_beginning(self, tmp_path: Path) -> None:
        assert InDirectory(tmp_path / "new").load() is None

    def test_has_the_last_one_and_no_other(self, tmp_path: Path) -> None:
        for number in range(11):
            self.save(tmp_path / "kept", tmp_path / "scratch", str(number))
        last = InDirectory(tmp_path / "kept").load()
        assert last is not None
        assert (last / "state.json").read_text() == "10"
        assert [path.name for path in (tmp_path / "kept").iterdir()] == [last.name]

    def test_does_not_take_a_half_written_one_for_whole(self, tmp_path: Path) -> None:
        (tmp_path / "kept" / "partial").mkdir(parents=True)
        (tmp_path / "kept" / "partial" / "state.json").write_text("half")
        assert InDirectory(tmp_path / "kept").load() is None
        self.save(tmp_path / "kept", tmp_path / "scratch", "whole")
        last = InDirectory(tmp_path / "kept").load()
        assert last is not None
        assert (last / "state.json").read_text() == "whole"
