import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from small_vit import INPUT_SIZE, Make
from torch import Tensor, nn

from core.checkpoints import InDirectory
from core.course import Course, Standing
from core.distill import Distilled, augmented, distill, feature_error
from core.progress import Progress, Stage, ignore
from core.recipe import Finetune

Batches = list[tuple[Tensor, Tensor]]

pytestmark = pytest.mark.long
SHORT = Finetune(epochs=6, batch_size=32)


@pytest.fixture
def student(vit: nn.Module) -> nn.Module:
    """The original, damaged, with buffers that no training may touch."""
    generator = torch.Generator().manual_seed(7)
    damaged = copy.deepcopy(vit)
    for parameter in damaged.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    damaged.register_buffer("kept_units", torch.tensor([2, 3, 5]))
    damaged.register_buffer("running", torch.tensor([0.25, 0.5]))
    return damaged


def distilled(student: nn.Module, vit: nn.Module, batches: Batches, settings: Finetune, **kwargs: Any) -> Distilled:
    """Judged by the last batch."""
    given: dict[str, Any] = {"seed": 3, "on_progress": ignore} | kwargs
    return distill(student, vit, batches[:-1], batches[-1:], settings, **given)


@torch.inference_mode()
def divergence(vit: nn.Module, model: nn.Module, batches: Batches) -> float:
    images = torch.cat([images for images, _ in batches])
    before, after = (each(images).double().log_softmax(-1) for each in (vit, model))
    return float(F.kl_div(after, before, reduction="batchmean", log_target=True))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


class TestDistilling:
    @pytest.mark.parametrize("augment", [(), ("flip", "shift", "mix")])
    def test_brings_the_model_nearer_to_the_original_on_images_it_has_not_seen(
        self, vit: nn.Module, student: nn.Module, batches: Batches, augment: tuple[str, ...]
    ) -> None:
        settings = Finetune.model_validate({"epochs": 10, "batch_size": 32, "augment": augment})
        done = distilled(student, vit, batches[:-1], settings)
        assert divergence(vit, done.model, batches[-1:]) < 0.5 * divergence(vit, student, batches[-1:])
        assert done.report.kept == "tuned"
        assert (done.report.epochs, done.report.stopped_early, done.report.resumed_from_step) == (10, False, None)
        assert done.report.held_out_loss_before is not None
        assert done.report.held_out_loss_after is not None
        assert done.report.held_out_loss_after < 0.5 * done.report.held_out_loss_before

    def test_says_the_loss_of_the_model_that_it_gives(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        done = distilled(student, vit, batches, SHORT)
        held_out = batches[-1:]
        assert done.report.held_out_loss_before == pytest.approx(divergence(vit, student, held_out), rel=1e-4)
        assert done.report.held_out_loss_after == pytest.approx(divergence(vit, done.model, held_out), rel=1e-4)

    def test_reads_no_label(self, vit: nn.Module, student: nn.Module, batches: Batches) -> None:
        unlabelled = [(images, torch.full_like(labels, -1)) for images, labels in batches]
        one, other = (distilled(student, vit, each, SHORT).model for each in (batches, unlabelled))
        same(one, other)

    def test_leaves_both_models_and_all_buffers_as_they_were(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        before = weights(vit), weights(student)
        done = distilled(student, vit, batches, SHORT)
        torch.testing.assert_close((weights(vit), weights(student)), before, rtol=0, atol=0)
        assert not done.model.training
        assert done.model.get_buffer("kept_units").tolist() == [2, 3, 5]
        assert done.model.get_buffer("running").tolist() == [0.25, 0.5]

    def test_trains_what_requires_a_gradient_alone(self, vit: nn.Module, student: nn.Module, batches: Batches) -> None:
        frozen = student.get_parameter("blocks.1.mlp.fc2.weight").requires_grad_(False)
        done = distilled(student, vit, batches, SHORT)
        assert done.report.kept == "tuned"
        assert torch.equal(done.model.get_parameter("blocks.1.mlp.fc2.weight"), frozen)

    def test_of_a_model_that_is_all_frozen_does_nothing(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        done = distilled(student.requires_grad_(False), vit, batches, SHORT)
        assert (done.model, done.report.steps) == (student, 0)

    def test_computes_the_same_with_gradient_checkpointing(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        plain = distilled(student, vit, batches, SHORT)
        frugal = distilled(student, vit, batches, SHORT.model_copy(update={"gradient_checkpointing": True}))
        torch.testing.assert_close(frugal.model.state_dict(), plain.model.state_dict())
        assert not any(getattr(each, "grad_checkpointing", False) for each in frugal.model.modules())
        assert frugal.report.warnings == ()

    @pytest.mark.parametrize("architecture", ["levit_128s", "pit_ti_224"])
    def test_warns_where_there_is_no_gradient_checkpointing(self, architecture: str) -> None:
        torch.manual_seed(0)
        model = timm.create_model(architecture, num_classes=7).eval()
        batches = [(torch.randn(2, 3, 224, 224), torch.zeros(2, dtype=torch.long))] * 2
        settings = Finetune(steps=1, gradient_checkpointing=True)
        report = distilled(copy.deepcopy(model), model, batches, settings).report
        assert report.steps == 1
        (warning,) = report.warnings
        assert "no gradient checkpointing" in warning

    def test_of_a_model_without_features_goes_by_its_logits(self, batches: Batches) -> None:
        torch.manual_seed(0)
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(288, 7)).eval()
        narrow = nn.Sequential(nn.Flatten(), nn.Linear(288, 5), nn.Linear(5, 7)).eval()
        done = distilled(narrow, teacher, batches, Finetune(epochs=10, learning_rate=0.01))
        assert done.report.kept == "tuned"

    def test_of_a_model_whose_features_have_another_shape_goes_by_its_logits(
        self, make_vit: Make, batches: Batches
    ) -> None:
        done = distilled(make_vit(embed_dim=14), make_vit(), batches, SHORT)
        assert done.report.kept == "tuned"

    def test_heeds_features_as_much_as_it_is_told(self, vit: nn.Module, student: nn.Module, batches: Batches) -> None:
        def error(weight: float) -> float:
            settings = SHORT.model_copy(update={"feature_weight": weight})
            model: Any = distilled(student, vit, batches, settings).model
            with torch.inference_mode():
                images = batches[-1][0]
                return float(feature_error(model.forward_features(images), vit.forward_features(images)))  # type: ignore[operator]

        assert error(10.0) < 0.9 * error(0.0)


class TestWhatIsKept:
    def test_is_the_model_as_it_came_where_that_is_better(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        done = distilled(student, vit, batches, SHORT.model_copy(update={"learning_rate": 3.0}))
        assert done.model is student
        assert done.report.kept == "training_free"
        assert done.report.held_out_loss_before is not None
        assert done.report.held_out_loss_after is None or (
            done.report.held_out_loss_after > done.report.held_out_loss_before
        )

    def test_of_a_perfect_model_is_that_model(self, vit: nn.Module, batches: Batches) -> None:
        assert distilled(vit, vit, batches, SHORT).model is vit

    def test_of_a_training_that_breaks_down_is_what_was_there_before(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        settings = SHORT.model_copy(update={"learning_rate": 1e30})
        done = distilled(student, vit, batches, settings)
        assert done.model is student
        assert done.report.stopped_early


class TestTheEnd:
    def test_comes_early_when_the_held_out_images_gain_nothing(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        settings = Finetune(epochs=50, batch_size=32, learning_rate=3.0, patience=2)
        report = distilled(student, vit, batches, settings).report
        assert report.stopped_early
        assert report.epochs < 25

    def test_comes_after_the_steps_that_were_asked_for(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        report = distilled(student, vit, batches, Finetune(steps=7, batch_size=32)).report
        assert (report.steps, report.held_out_loss_after is None) == (7, False)

    def test_comes_after_the_seconds_that_were_asked_for(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        report = distilled(student, vit, batches, Finetune(seconds=0.2, batch_size=32)).report
        assert report.steps > 0
        assert report.seconds >= 0.2


class _CutOffError(Exception):
    pass


def cut_off_at(step: int, steps: int) -> Callable[[Progress], None]:
    """A listener that ends what it listens to, as a kill would."""

    def listen(progress: Progress) -> None:
        if progress.fraction >= step / steps:
            raise _CutOffError

    return listen


class TestGoingOn:
    SETTINGS = Finetune(
        steps=23, batch_size=32, patience=None, augment=("flip", "shift", "mix"), checkpoint_seconds=1e-9
    )

    @pytest.mark.parametrize("step", [1, 5, 11, 23])
    def test_ends_as_an_undisturbed_training_does(
        self, vit: nn.Module, student: nn.Module, batches: Batches, tmp_path: Path, step: int
    ) -> None:
        undisturbed = distilled(student, vit, batches, self.SETTINGS)
        with pytest.raises(_CutOffError):
            distilled(
                student,
                vit,
                batches,
                self.SETTINGS,
                on_progress=cut_off_at(step, 23),
                checkpoints=InDirectory(tmp_path),
            )
        heard: list[Progress] = []
        resumed = distilled(
            student, vit, batches, self.SETTINGS, on_progress=heard.append, checkpoints=InDirectory(tmp_path)
        )
        same(resumed.model, undisturbed.model)
        assert resumed.report.resumed_from_step == step
        assert heard[0].fraction == pytest.approx(step / 23)
        ours, theirs = resumed.report.model_dump(), undisturbed.report.model_dump()
        assert {**ours, "seconds": 0, "resumed_from_step": None} == {**theirs, "seconds": 0}
        assert resumed.report.seconds > 0

    def test_keeps_patience_as_short_as_it_was(
        self, vit: nn.Module, student: nn.Module, batches: Batches, tmp_path: Path
    ) -> None:
        settings = Finetune(epochs=50, batch_size=32, learning_rate=3.0, patience=4, checkpoint_seconds=1e-9)
        undisturbed = distilled(student, vit, batches, settings).report
        with pytest.raises(_CutOffError):
            distilled(
                student,
                vit,
                batches,
                settings,
                on_progress=cut_off_at(undisturbed.steps - 7, 250),
                checkpoints=InDirectory(tmp_path),
            )
        resumed = distilled(student, vit, batches, settings, checkpoints=InDirectory(tmp_path)).report
        assert (resumed.steps, resumed.stopped_early) == (undisturbed.steps, True)

    def test_is_the_same_again_with_the_same_seed_and_another_with_another(
        self, vit: nn.Module, student: nn.Module, batches: Batches
    ) -> None:
        one, again, other = (
            distilled(student, vit, batches, self.SETTINGS, seed=seed).model.get_parameter("head.weight")
            for seed in (3, 3, 4)
        )
        assert torch.equal(one, again)
        assert not torch.equal(one, other)

    def test_leaves_files_that_are_data_alone(
        self, vit: nn.Module, student: nn.Module, batches: Batches, tmp_path: Path
    ) -> None:
        distilled(student, vit, batches, self.SETTINGS, checkpoints=InDirectory(tmp_path))
        [last] = tmp_path.iterdir()
        assert {path.suffix for path in last.iterdir()} == {".safetensors", ".json"}


class TestProgress:
    @pytest.mark.parametrize("budget", [{"epochs": 5}, {"steps": 20}, {"seconds": 0.3}])
    def test_tells_the_loss_and_the_time_left(
        self, vit: nn.Module, student: nn.Module, batches: Batches, budget: dict[str, Any]
    ) -> None:
        heard: list[Progress] = []
        distilled(student, vit, batches, Finetune(batch_size=32, **budget), on_progress=heard.append)
        assert {each.stage for each in heard} == {Stage.FINETUNE}
        fractions = [each.fraction for each in heard]
        assert (fractions[0], fractions[-1]) == (0.0, 1.0)
        assert fractions == sorted(fractions)
        assert heard[0].loss is None
        assert all(each.loss is not None and each.loss > 0 for each in heard[1:])
        assert all(each.eta_seconds is not None and each.eta_seconds > 0 for each in heard[1:-1])
        assert heard[-1].eta_seconds == 0


class TestTheCourse:
    def test_shows_every_image_once_an_epoch_in_batches_of_like_size(self) -> None:
        course = Course(Finetune(epochs=3, batch_size=32), 101, seed=5)
        for epoch in range(3):
            batches = [course.batch(epoch * course.epoch_steps + step) for step in range(course.epoch_steps)]
            assert sorted(index for batch in batches for index in batch) == list(range(101))
            assert {len(batch) for batch in batches} == {25, 26}

    def test_warms_up_to_the_learning_rate_and_falls_to_none(self) -> None:
        course = Course(Finetune(steps=100, learning_rate=0.02, warmup=0.2), 64, seed=5)
        rates = [course.learning_rate(Standing(step=step)) for step in range(100)]
        assert rates[:21] == sorted(rates[:21])
        assert rates[20:] == sorted(rates[20:], reverse=True)
        assert rates[10] == pytest.approx(0.01)
        assert rates[20] == pytest.approx(0.02)
        assert rates[60] == pytest.approx(0.01)
        assert rates[0] > 0
        assert 0 < rates[-1] < 0.0005

    @pytest.mark.parametrize("warmup", [0.0, 1.0])
    def test_may_be_all_warm_up_or_none(self, warmup: float) -> None:
        course = Course(Finetune(steps=10, learning_rate=0.02, warmup=warmup), 64, seed=5)
        rates = [course.learning_rate(Standing(step=step)) for step in range(10)]
        assert all(0 < rate <= 0.02 for rate in rates)


class TestTheBudget:
    def test_is_one_of_three(self) -> None:
        with pytest.raises(ValueError, match="epochs and seconds"):
            Finetune(epochs=1, seconds=60)
        assert Finetune().epochs is not None
        assert (Finetune(steps=5).epochs, Finetune(seconds=5).epochs) == (None, None)
        assert Finetune.model_validate(Finetune(steps=5).model_dump(mode="json")) == Finetune(steps=5)


class TestAugmenting:
    def images(self) -> Tensor:
        return torch.arange(5 * 2 * 12 * 12).view(5, *INPUT_SIZE).float()

    def rng(self) -> Any:
        return Course(SHORT, 5, seed=1).rng(2)

    def test_by_nothing_changes_nothing(self) -> None:
        assert torch.equal(augmented(self.images(), (), self.rng()), self.images())

    def test_flips_some_images_and_no_others(self) -> None:
        images = self.images()
        flipped = [
            torch.equal(each, image.flip(-1))
            for each, image in zip(augmented(images, ("flip",), self.rng()), images, strict=True)
        ]
        same = [torch.equal(a, b) for a, b in zip(augmented(images, ("flip",), self.rng()), images, strict=True)]
        assert [one != other for one, other in zip(flipped, same, strict=True)] == [True] * 5
        assert any(flipped)
        assert any(same)

    def test_shifts_by_an_eighth_at_most(self) -> None:
        images = torch.zeros(40, *INPUT_SIZE)
        images[:, :, 6, 5] = 1
        places = {tuple(each[0].nonzero()[0].tolist()) for each in augmented(images, ("shift",), self.rng())}
        assert places == {(row, column) for row in (5, 6, 7) for column in (4, 5, 6)}

    def test_mixes_each_image_with_another_one_of_the_batch(self) -> None:
        images = torch.eye(5).view(5, 5, 1, 1).repeat(1, 1, 12, 12)
        mixed = augmented(images, ("mix",), self.rng())
        torch.testing.assert_close(mixed.sum(1), torch.ones(5, 12, 12))
        assert ((mixed > 0).sum(1) <= 2).all()
        assert not torch.equal(mixed, images)


class TestTheFeatureError:
    def test_is_one_for_the_mean_and_none_for_the_truth(self) -> None:
        wanted = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))
        assert feature_error(wanted, wanted) == 0
        assert feature_error(wanted.mean((0, 1), keepdim=True).expand_as(wanted), wanted) == pytest.approx(1.0)

    def test_does_not_care_for_a_massive_constant(self) -> None:
        wanted = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(2))
        seen = wanted + 0.1
        massive = torch.tensor([0.0, 0, 0, 1000, 0, 0, 0])
        assert feature_error(seen + massive, wanted + massive) == pytest.approx(
            float(feature_error(seen, wanted)), rel=1e-3
        )
