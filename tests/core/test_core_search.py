"""Each goal, met on a small model; and sweeps, which calibrate once."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from small_vit import Make
from torch import Tensor, nn

from core import latency, measure, pipeline
from core.checkpoints import InDirectory
from core.errors import UnreachableTargetError
from core.pipeline import compress
from core.progress import Progress, Stage
from core.recipe import AnyRecipe, Finetune, FisherRecipe, SvdMagnitudeRecipe
from core.report import Report, Search, folder, sweep_report
from core.search import increase_interval, is_within
from examples import REPORT

Batches = list[tuple[Tensor, Tensor]]

pytestmark = pytest.mark.long
SWEEP = FisherRecipe(target_ratios=(0.2, 0.4, 0.6), calibration_images=64)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)
    monkeypatch.setattr(latency, "SECONDS", 0.1)


@pytest.fixture
def labelled(vit: nn.Module, batches: Batches) -> Batches:
    """The model's own answers as labels, but for every seventh: it has learned them, so to speak."""
    with torch.inference_mode():
        answers = [vit(images).argmax(-1) for images, _ in batches]
    return [
        (images, torch.where(torch.arange(len(images)) % 7 == 0, labels, own))
        for (images, labels), own in zip(batches, answers, strict=True)
    ]


def fractions(heard: Iterable[Progress], stage: Stage) -> list[float]:
    return [each.fraction for each in heard if each.stage is stage]


class TestMacs:
    @pytest.mark.parametrize("fraction", [0.2, 0.5])
    def test_are_removed_within_one_percent(self, vit: nn.Module, batches: Batches, fraction: float) -> None:
        done = compress(vit, FisherRecipe(target_macs=fraction, calibration_images=64), batches)
        before, after = done.report.before.macs, done.report.after.macs
        assert 1 - after / before == pytest.approx(fraction, abs=0.01)
        assert done.report.constraint.kind == "target_macs"
        assert done.report.constraint.achieved == pytest.approx(1 - after / before)
        assert done.report.constraint.met
        assert done.plan.macs_after == after  # what the plan says is what a forward pass does


class TestLatency:
    def test_that_was_achieved_is_the_one_measured_on_the_whole_model(self, make_vit: Make, batches: Batches) -> None:
        recipe = FisherRecipe(target_latency=0.05, latency_batch=3, calibration_images=64)
        report = compress(make_vit(embed_dim=192), recipe, batches).report
        [before], [after] = (
            [each.p50_ms for each in side.latency if each.batch == 3] for side in (report.before, report.after)
        )
        constraint = report.constraint
        assert (constraint.kind, constraint.requested) == ("target_latency", 0.05)
        assert constraint.achieved == pytest.approx(1 - after / before)
        assert constraint.achieved is not None
        assert constraint.met == (constraint.achieved >= 0.04)
        assert report.search is not None
        assert 1 <= len(report.search.trials) <= 2
        chosen = report.search.trials[report.search.chosen]
        assert chosen.ratio == pytest.approx(1 - report.after.parameters / report.before.parameters)

    def test_that_no_size_gives_is_unreachable(self, vit: nn.Module, batches: Batches) -> None:
        """A quarter of this model is no layer that can be compressed, and neither is its start-up."""
        with pytest.raises(UnreachableTargetError, match=r"target_latency 0\.99 is unreachable"):
            compress(vit, FisherRecipe(target_latency=0.99, calibration_images=64), batches)


class TestErrorIncrease:
    def searched(self, vit: nn.Module, batches: Batches, allowed: float) -> tuple[Report, Search]:
        report = compress(vit, FisherRecipe(max_error_increase=allowed, calibration_images=64), batches).report
        assert report.search is not None
        return report, report.search

    def test_keeps_the_smallest_model_that_was_within_it(self, vit: nn.Module, labelled: Batches) -> None:
        report, search = self.searched(vit, labelled, 1.0)
        within = [trial.ratio for trial in search.trials if trial.within]
        assert 6 <= len(search.trials) <= 8
        assert search.trials[search.chosen].ratio == max(within)
        assert 1 - report.after.parameters / report.before.parameters == pytest.approx(max(within))
        beyond = [trial.ratio for trial in search.trials if not trial.within]
        assert not beyond or min(beyond) > max(within)

    def test_is_judged_on_the_evaluation_images(self, vit: nn.Module, labelled: Batches) -> None:
        constraint, change = (report := self.searched(vit, labelled, 0.5)[0]).constraint, report.change
        assert (constraint.kind, constraint.requested) == ("max_error_increase", 0.5)
        assert constraint.achieved == change.relative_increase_in_error
        assert constraint.met == (constraint.achieved is not None and constraint.achieved <= 0.5)

    def test_that_is_larger_allows_a_smaller_model(self, vit: nn.Module, labelled: Batches) -> None:
        small, large = (self.searched(vit, labelled, allowed)[0].after.parameters for allowed in (3.0, 0.0))
        assert small < large

    def test_holds_a_quarter_of_the_calibration_images_out(self, vit: nn.Module, labelled: Batches) -> None:
        _, search = self.searched(vit, labelled, 0.5)
        assert search.held_out_images == 16

    def test_calibrates_once_and_on_the_rest(self, vit: nn.Module, labelled: Batches) -> None:
        heard: list[Progress] = []
        compress(vit, FisherRecipe(max_error_increase=0.5, calibration_images=64), labelled, heard.append)
        calibrated = fractions(heard, Stage.CALIBRATE)
        assert calibrated == sorted(calibrated)
        assert calibrated.count(1.0) == 1
        for stage in (Stage.COMPRESS, Stage.EVALUATE):
            assert fractions(heard, stage) == sorted(fractions(heard, stage))

    def test_asks_each_model_once_and_the_original_not_for_every_try(
        self, vit: nn.Module, labelled: Batches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[nn.Module] = []
        answer = measure.logits

        def heard(model: nn.Module, data: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
            asked.append(model)
            return answer(model, data)

        monkeypatch.setattr(measure, "logits", heard)
        _, search = self.searched(vit, labelled, 0.5)
        assert len({id(model) for model in asked}) == len(asked) == 1 + len(search.trials)


class TestTheIntervalOfAnIncrease:
    def test_contains_the_increase_and_narrows_with_the_images(self) -> None:
        widths = []
        for scale in (1, 10, 100):
            low, high = increase_interval(40 * scale, 10 * scale, 20 * scale)
            assert low is not None
            assert high is not None
            assert low < (60 - 50) / 50 < high
            widths.append(high - low)
        assert widths[1] < widths[0] / 2
        assert widths[2] == pytest.approx(widths[0] / 10, rel=0.1)

    def test_of_models_that_never_differ_is_not_a_point(self) -> None:
        low, high = increase_interval(30, 0, 0)
        assert low is not None
        assert high is not None
        assert low < -0.01
        assert high > 0.01

    def test_has_no_end_where_next_to_nothing_was_wrong_before(self) -> None:
        assert increase_interval(0, 1, 5) == (None, None)

    def test_covers_the_truth_about_as_often_as_it_says(self) -> None:
        generator = torch.Generator().manual_seed(0)
        chances = torch.tensor([0.06, 0.03, 0.05, 0.86])  # both wrong, only before, only after, none
        truth = (0.11 - 0.09) / 0.09
        covered = []
        for _ in range(2000):
            drawn = torch.multinomial(chances, 400, replacement=True, generator=generator).bincount(minlength=4)
            low, high = increase_interval(int(drawn[0]), int(drawn[1]), int(drawn[2]))
            covered.append(low is not None and high is not None and low <= truth <= high)
        assert 0.93 <= sum(covered) / len(covered) <= 0.99

    def test_is_within_what_was_allowed_or_without_a_new_error_where_there_was_none(self) -> None:
        assert is_within(0.1, 0.1, more_wrong=True)
        assert not is_within(0.11, 0.1, more_wrong=True)
        assert is_within(None, 0.1, more_wrong=False)
        assert not is_within(None, 0.1, more_wrong=True)


class TestASweep:
    def test_gives_a_model_for_each_ratio_as_alone(self, vit: nn.Module, batches: Batches) -> None:
        together = pipeline.sweep(vit, SWEEP, batches)
        assert [each.report.recipe.target_ratio for each in together] == [0.2, 0.4, 0.6]
        assert all(each.report.constraint.met for each in together)
        alone = compress(vit, FisherRecipe(target_ratio=0.4, calibration_images=64), batches)
        assert together[1].plan == alone.plan
        torch.testing.assert_close(together[1].model.state_dict(), alone.model.state_dict(), rtol=0, atol=0)

    def test_calibrates_once(self, vit: nn.Module, batches: Batches) -> None:
        heard: dict[str, list[Progress]] = {"sweep": [], "one": []}
        pipeline.sweep(vit, SWEEP, batches, heard["sweep"].append)
        compress(vit, FisherRecipe(target_ratio=0.4, calibration_images=64), batches, heard["one"].append)
        assert fractions(heard["sweep"], Stage.CALIBRATE) == fractions(heard["one"], Stage.CALIBRATE)

    def test_goes_through_the_stages_once(self, vit: nn.Module, batches: Batches) -> None:
        heard: list[Progress] = []
        pipeline.sweep(vit, SWEEP, batches, heard.append)
        changes = [
            one.stage
            for one, before in zip(heard, [None, *heard], strict=False)
            if not before or one.stage is not before.stage
        ]
        assert changes == [Stage.CALIBRATE, Stage.COMPRESS, Stage.EVALUATE]
        for stage in changes:
            passed = fractions(heard, stage)
            assert passed == sorted(passed)
            assert passed[-1] == pytest.approx(1)

    def test_of_a_method_that_makes_no_survey_runs_it_for_each_ratio(self, vit: nn.Module, batches: Batches) -> None:
        recipe = SvdMagnitudeRecipe(target_ratios=(0.3, 0.5), calibration_images=64)
        together = pipeline.sweep(vit, recipe, batches)
        assert [each.plan.ratio for each in together] == [pytest.approx(0.3, abs=0.01), pytest.approx(0.5, abs=0.01)]
        alone = compress(vit, SvdMagnitudeRecipe(target_ratio=0.5, calibration_images=64), batches)
        assert together[1].plan == alone.plan

    def test_is_not_what_compress_gives(self, vit: nn.Module, batches: Batches) -> None:
        with pytest.raises(ValueError, match="several models"):
            compress(vit, SWEEP, batches)

    def test_goes_on_with_the_model_where_it_was_cut_off(
        self, vit: nn.Module, batches: Batches, tmp_path: Path
    ) -> None:
        tuning = Finetune(steps=9, batch_size=16, checkpoint_seconds=1e-9)
        recipe = FisherRecipe(target_ratios=(0.3, 0.5), calibration_images=64, finetune=tuning)
        undisturbed = pipeline.sweep(vit, recipe, batches)
        with pytest.raises(InterruptedError):
            pipeline.sweep(vit, recipe, batches, stop_at(Stage.FINETUNE, 0.8), InDirectory(tmp_path))
        resumed = pipeline.sweep(vit, recipe, batches, checkpoints=InDirectory(tmp_path))
        steps = [each.report.finetune.resumed_from_step for each in resumed if each.report.finetune]
        assert len(steps) == 2
        assert all(step is not None and step > 0 for step in steps)
        for ours, theirs in zip(resumed, undisturbed, strict=True):
            assert ours.plan == theirs.plan
            torch.testing.assert_close(ours.model.state_dict(), theirs.model.state_dict(), rtol=0, atol=0)


def stop_at(stage: Stage, fraction: float) -> Callable[[Progress], None]:
    def listener(progress: Progress) -> None:
        if progress.stage is stage and progress.fraction >= fraction:
            raise InterruptedError

    return listener


class TestTheParetoTable:
    def table(self, *models: tuple[int, int, float]) -> list[bool]:
        """Whether each of ``models`` (parameters, MACs, top-1) is dominated."""
        ratios = tuple(0.1 + 0.1 * index for index in range(len(models)))
        recipe: AnyRecipe = FisherRecipe(target_ratios=ratios)
        return [row.dominated for row in sweep_report(recipe, [_report(*each) for each in models]).table]

    def test_marks_what_another_is_as_good_as_in_everything(self) -> None:
        assert self.table((900, 90, 0.9), (500, 50, 0.9), (300, 30, 0.8)) == [True, False, False]

    def test_lets_equals_stand(self) -> None:
        assert self.table((500, 50, 0.9), (500, 50, 0.9)) == [False, False]

    def test_lets_one_stand_that_is_best_in_macs_alone(self) -> None:
        assert self.table((500, 40, 0.8), (400, 50, 0.9)) == [False, False]

    def test_has_a_folder_for_each_model(self) -> None:
        assert folder(0.5) == "ratio-0.5"


def _report(parameters: int, macs: int, top1: float) -> Report:
    after = REPORT.after.model_copy(
        update={
            "parameters": parameters,
            "macs": macs,
            "accuracy": REPORT.after.accuracy.model_copy(
                update={"top1": REPORT.after.accuracy.top1.model_copy(update={"value": top1})}
            ),
        }
    )
    return REPORT.model_copy(update={"after": after})
