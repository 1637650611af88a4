import io
from base64 import b64decode
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from method_runs import Batches, logits, prepared, shape_of
from PIL import Image
from small_vit import CLASSES
from torch import Tensor, nn

from core import evidence, measure
from core.calibrate import calibrate
from core.data import Splits, open_splits, prepare
from core.datasets import describe_folder
from core.evidence import SAMPLES, SHOWN_IMAGES, Evidence, Spectrum, SpectrumPoint
from core.families import canonical_copy
from core.lowrank import DAMPING, SENSE_DAMPING
from core.measure import Answers, Pair, Timing
from core.pipeline import compress
from core.progress import ignore
from core.recipe import (
    ActivationSvdRecipe,
    AnyRecipe,
    FisherRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    SvdRecipe,
    VtpRecipe,
)
from core.search import reach
from core.spectra import steps
from core.witness import gather
from vitpress.artifact import ModelConfig, Preprocessing
from vitpress.plan import FeedForward

FISHER = FisherRecipe(target_ratio=0.5, calibration_images=64)


@pytest.fixture(autouse=True)
def _short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)


def random_answers(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels in their order, as in a folder of class folders, and what two models made of them: each errs at times."""
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, classes, images))
    before = np.where(rng.random(images) < 0.2, rng.integers(0, classes, images), labels)
    after = np.where(rng.random(images) < 0.1, rng.integers(0, classes, images), before)
    return labels, before, after


class TestConfusion:
    def test_counts_every_image_by_label_and_answer_before_and_after(self) -> None:
        labels, before, after = random_answers(1009, 7)
        found = evidence.confusion(labels, before, after)
        for side, answers in (("before", before), ("after", after)):
            counted = Counter(zip(labels.tolist(), answers.tolist(), strict=True))
            assert {(cell.label, cell.answer): getattr(cell, side) for cell in found if getattr(cell, side)} == counted
        assert [cell[:2] for cell in found] == sorted({cell[:2] for cell in found})

    def test_is_that_of_both_models_on_the_evaluation_images(self, vit: nn.Module, batches: Batches) -> None:
        done = compress(vit, FISHER, batches)
        images = [(each, labels) for each, labels in done.evaluation]
        labels = torch.cat([each for _, each in images])
        answers = {
            "before": logits(vit, images).argmax(1).tolist(),
            "after": logits(done.model, images).argmax(1).tolist(),
        }
        for side, answered in answers.items():
            counted = Counter(zip(labels.tolist(), answered, strict=True))
            got = {(cell.label, cell.answer): getattr(cell, side) for cell in done.evidence.confusion}
            assert {pair: count for pair, count in got.items() if count} == counted
        right = sum(cell.after for cell in done.evidence.confusion if cell.label == cell.answer)
        accuracy = done.report.after.accuracy
        assert right / accuracy.images == pytest.approx(accuracy.top1.value)
        assert done.evidence.changes.lost == done.report.change.mcnemar.only_before_right
        assert done.evidence.changes.gained == done.report.change.mcnemar.only_after_right


class TestChangedImages:
    def test_are_told_by_what_became_of_their_answers(self) -> None:
        labels = np.array([0, 1, 2, 3, 0, 1])
        before = np.array([0, 1, 0, 1, 2, 1])
        after = np.array([0, 2, 2, 2, 2, 0])
        assert evidence.changed(labels, before, after) == {"lost": [1, 5], "gained": [2], "other": [3]}

    def test_share_the_room_and_what_one_kind_leaves_over(self) -> None:
        chosen = evidence.fair_choice({"lost": list(range(500)), "gained": list(range(7)), "other": list(range(41))})
        counted = Counter(kind for kind, _ in chosen)
        assert counted == {"lost": 27, "gained": 7, "other": 26}
        assert len(chosen) == SHOWN_IMAGES

    def test_are_spread_over_the_whole_set(self) -> None:
        chosen = evidence.fair_choice({"lost": list(range(0, 1000, 2)), "gained": [], "other": []}, most=5)
        assert [index for _, index in chosen] == [0, 250, 500, 748, 998]

    def test_are_all_there_where_they_are_few(self) -> None:
        found: dict[evidence.ChangeKind, list[int]] = {"lost": [3, 11], "gained": [], "other": [5]}
        assert evidence.fair_choice(found) == [("lost", 3), ("lost", 11), ("other", 5)]

    def test_come_with_what_each_model_said_and_how_sure_it_was(self, vit: nn.Module, batches: Batches) -> None:
        done = compress(vit, FISHER, batches)
        images = [(each, labels) for each, labels in done.evaluation]
        labels = torch.cat([each for _, each in images])
        sides = {"before": logits(vit, images).softmax(1), "after": logits(done.model, images).softmax(1)}
        assert done.evidence.changes.images
        for image in done.evidence.changes.images:
            assert image.label == labels[image.index]
            for side, probabilities in sides.items():
                assert getattr(image, side) == probabilities[image.index].argmax()
                told = getattr(image, f"probability_{side}")
                assert told == pytest.approx(float(probabilities[image.index].max()), abs=1e-4)
            assert image.before != image.after
            assert (image.file, image.thumbnail) == (None, None)  # tensors were given, no files


CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    kwargs={"img_size": 12, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 3},
    preprocessing=Preprocessing(input_size=(3, 12, 12), mean=(0.5,) * 3, std=(0.5,) * 3),
    class_names=("blue", "green", "red"),
)


class TestThumbnails:
    """Of a folder of images, one of which is a calibration image as well and so no evaluation image."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        for split, count in (("calibration", 24), ("test", 11)):
            for place, name in enumerate(("red", "green", "blue")):
                directory = tmp_path / split / name
                directory.mkdir(parents=True)
                for index in range(count):
                    pixels = rng.integers(0, 120, (130, 170, 3), dtype=np.uint8)
                    pixels[:, :, place] += np.uint8(100)
                    Image.fromarray(pixels).save(directory / f"{index:02}.png")
        (tmp_path / "test" / "blue" / "00.png").write_bytes((tmp_path / "calibration" / "blue" / "00.png").read_bytes())
        return tmp_path

    def test_are_small_pictures_of_the_files_that_they_name(self, folder: Path) -> None:
        data = prepare(open_splits(describe_folder("local:colours", folder), CONFIG, 72, seed=0), 72, seed=0)
        labels = torch.cat([each for _, each in data.evaluation])
        answers = Answers(labels, Pair(labels, (labels + 1) % 3), Pair(labels.double(), labels.double()))
        found = gather(answers, data, [], None)
        assert data.evaluation.dropped == 1
        assert found.class_names == CONFIG.class_names
        assert len(found.changes.images) == found.changes.lost == len(labels) == 32
        files = [path for name in CONFIG.class_names or () for path in sorted((folder / "test" / name).iterdir())]
        files.remove(folder / "test" / "blue" / "00.png")
        for image in found.changes.images:
            path = files[image.index]
            assert image.file == f"{path.parent.name}/{path.name}"
            assert (CONFIG.class_names or ())[image.label] == path.parent.name
            picture = Image.open(io.BytesIO(b64decode(image.thumbnail or "")))
            assert (picture.format, picture.size) == ("WEBP", (96, 73))
            whole = np.asarray(Image.open(path).resize((96, 73)), dtype=float)
            assert np.abs(np.asarray(picture.convert("RGB"), dtype=float) - whole).mean() < 25

    def test_names_that_are_no_text_do_no_harm(self) -> None:
        two = [(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]))]
        data = prepare(Splits(two, two, class_names=("a\udcff",)), 2, seed=0)
        same = torch.tensor([0, 1])
        sure = torch.ones(2).double()
        found = gather(Answers(same, Pair(same, same), Pair(sure, sure)), data, [], None)
        assert Evidence.model_validate_json(found.model_dump_json()).class_names == ("a?",)


class TestLatency:
    def test_has_the_samples_that_the_report_is_made_of(self, vit: nn.Module, batches: Batches) -> None:
        done = compress(vit, FISHER, batches)
        for told, before, after in zip(
            done.evidence.latency, done.report.before.latency, done.report.after.latency, strict=True
        ):
            assert told.batch == before.batch == after.batch
            assert told.measured >= len(told.before_ms) == len(told.after_ms) > 0
            for samples, latency in ((told.before_ms, before), (told.after_ms, after)):
                assert list(samples) == sorted(samples)
                assert np.quantile(samples, 0.5) == pytest.approx(latency.p50_ms, rel=0.02)

    def test_of_many_keeps_some_that_are_spread_alike(self) -> None:
        rng = np.random.default_rng(0)
        slow, fast = rng.gamma(9.0, 1.0, 12_347), rng.gamma(4.0, 1.0, 12_347)
        told = evidence.samples(1, slow.tolist(), fast.tolist())
        assert (told.measured, len(told.before_ms)) == (12_347, SAMPLES)
        for kept, whole in ((told.before_ms, slow), (told.after_ms, fast)):
            assert (kept[0], kept[-1]) == pytest.approx((whole.min(), whole.max()), rel=1e-4)
            shares = [0.05, 0.5, 0.95]
            np.testing.assert_allclose(np.quantile(kept, shares), np.quantile(whole, shares), rtol=0.02)


def spectra_of(model: nn.Module, recipe: AnyRecipe, batches: Batches) -> tuple[Spectrum, ...] | None:
    [reached] = reach([recipe], model, shape_of(model), prepared(batches), ignore)
    return reached.spectra


def lost(spectrum: Spectrum) -> float:
    """What the plan gives up of it."""
    first = min(spectrum.kept, spectrum.points[0].component)  # nothing below the smallest size can go
    starts = [first, *(point.component for point in spectrum.points)]
    return sum(
        point.loss * (point.component - start)
        for start, point in zip(starts, spectrum.points, strict=False)
        if point.component > spectrum.kept
    )


class TestSpectra:
    def test_of_the_plain_svd_are_the_weights_own(self, vit: nn.Module, batches: Batches) -> None:
        [reached] = reach([SvdRecipe(target_ratio=0.5)], vit, shape_of(vit), prepared(batches), ignore)
        assert reached.spectra is not None
        assert {each.part for each in reached.spectra} == {"qkv", "proj", "fc1", "fc2"}
        ranks = {layer.path: layer for layer in reached.plan.layers}
        for each in reached.spectra:
            weight = canonical_copy(vit).get_submodule(f"{each.path}.{each.part}").get_parameter("weight")
            energies = 0.5 * torch.linalg.svdvals(weight.detach().double()).square()
            assert (each.unit, each.count) == ("weight_energy", len(energies))
            assert [point.component for point in each.points] == list(range(1, each.count + 1))
            np.testing.assert_allclose([point.loss for point in each.points], energies, rtol=1e-4, atol=1e-9)
            assert each.kept == (getattr(ranks[each.path], f"{each.part}_rank", None) or each.count)

    def test_of_fisher_s_maps_are_those_of_its_metric(self, vit: nn.Module, batches: Batches) -> None:
        """½σ² of L_gᵀ W L_c, from the covariances and by NumPy's SVD."""
        data = prepared(batches)
        [reached] = reach([FISHER], vit, shape_of(vit), data, ignore)
        assert reached.spectra is not None
        ours = canonical_copy(vit)
        path = "blocks.1.mlp.fc1"
        moments = calibrate(ours, [path], data.calibration, seed=FISHER.seed, on_images=lambda _: None)[path]

        def root(matrix: Tensor, damping: float) -> np.ndarray:
            values = matrix.double().numpy()
            return np.linalg.cholesky(values + damping * np.diag(np.diag(values)))

        weight = ours.get_submodule(path).get_parameter("weight").detach().double().numpy()
        seen = root(moments.gradient, SENSE_DAMPING).T @ weight @ root(moments.covariance, DAMPING)
        energies = 0.5 * np.linalg.svd(seen, compute_uv=False) ** 2
        [found] = [each for each in reached.spectra if (each.path, each.part) == ("blocks.1.mlp", "fc1")]
        assert (found.unit, found.count) == ("nats", 22)
        np.testing.assert_allclose([point.loss for point in found.points], energies, rtol=1e-3)

    def test_beyond_what_is_kept_add_up_to_the_predicted_loss(self, vit: nn.Module, batches: Batches) -> None:
        [reached] = reach([FISHER], vit, shape_of(vit), prepared(batches), ignore)
        assert reached.spectra is not None
        given_up = 0
        for layer in reached.plan.layers:
            parts = [each for each in reached.spectra if each.path == layer.path]
            assert sum(map(lost, parts)) == pytest.approx(layer.predicted_loss, rel=1e-3, abs=1e-9)
            given_up += any(each.kept < each.count for each in parts)
        assert given_up > 2

    def test_say_how_many_units_are_kept(self, vit: nn.Module, batches: Batches) -> None:
        [reached] = reach([FISHER], vit, shape_of(vit), prepared(batches), ignore)
        blocks = [layer for layer in reached.plan.layers if isinstance(layer, FeedForward)]
        assert blocks
        for layer in blocks:
            [units] = [each for each in reached.spectra or () if (each.path, each.part) == (layer.path, "units")]
            assert (units.kept, units.count) == (layer.width, layer.width_before)

    @pytest.mark.parametrize(
        ("recipe", "unit"),
        [
            (ActivationSvdRecipe(target_ratio=0.5), "output_variance"),
            (SvdMagnitudeRecipe(target_ratio=0.5), "weight_energy"),
        ],
        ids=lambda value: getattr(value, "method", ""),
    )
    def test_tell_their_unit(self, vit: nn.Module, batches: Batches, recipe: AnyRecipe, unit: str) -> None:
        found = spectra_of(vit, recipe, batches)
        assert found
        assert {each.unit for each in found} == {unit}

    @pytest.mark.parametrize(
        "recipe",
        [MagnitudeRecipe(target_ratio=0.5), VtpRecipe(target_ratio=0.3, epochs=1)],
        ids=lambda recipe: recipe.method,
    )
    def test_are_none_where_nothing_is_ranked(self, vit: nn.Module, batches: Batches, recipe: AnyRecipe) -> None:
        assert spectra_of(vit, recipe, [(images, labels % CLASSES) for images, labels in batches]) is None

    def test_of_steps_share_a_loss_among_what_goes_in_them(self) -> None:
        assert steps({16: 0.0, 12: 0.2, 4: 3.4}) == (SpectrumPoint(12, 0.4), SpectrumPoint(16, 0.05))


def test_a_large_evaluation_leaves_little(vit: nn.Module, batches: Batches) -> None:
    """50,000 images of 1,000 classes, a fifth of them wrong, and 100,000 latencies: what is kept of them is small."""
    labels, before, after = (torch.from_numpy(each) for each in random_answers(50_000, 1000))
    sure = torch.rand(50_000, generator=torch.Generator().manual_seed(0)).double()
    times = np.random.default_rng(0).gamma(9.0, 1.0, 50_000).tolist()
    found = gather(
        Answers(labels, Pair(before, after), Pair(sure, sure)),
        prepared(batches),
        [Timing(1, Pair(times, times))],
        spectra_of(vit, FISHER, batches),
    )
    assert len(found.model_dump_json()) < 600_000
    assert sum(cell.before for cell in found.confusion) == 50_000
    assert len(found.changes.images) == SHOWN_IMAGES
    assert (found.changes.lost + found.changes.gained + found.changes.other) == int((before != after).sum())
