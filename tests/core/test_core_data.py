from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from core.data import Batches, Splits, hold_out, open_splits, prepare
from core.datasets import DatasetInfo, describe
from core.errors import DatasetError, UnknownDatasetError
from vitpress.artifact import ModelConfig, Preprocessing

CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    preprocessing=Preprocessing(input_size=(3, 16, 16), mean=(0.5,) * 3, std=(0.5,) * 3),
)


def numbered(count: int) -> tuple[Tensor, Tensor]:
    """Images that are their number, everywhere."""
    return torch.arange(count).float()[:, None, None, None].expand(count, 1, 2, 2), torch.arange(count)


def batched(count: int, size: int = 9) -> list[tuple[Tensor, Tensor]]:
    images, labels = numbered(count)
    return list(zip(images.split(size), labels.split(size), strict=True))


def numbers(batches: Batches) -> list[int]:
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]


class ShuffledAnew:
    """As a training loader is: another order on every pass."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = numbered(100)
        for index in torch.randperm(100).split(9):
            yield images[index], labels[index]


class TestOneSet:
    @pytest.mark.parametrize("data", [batched(100), iter(batched(100)), ShuffledAnew()])
    def test_is_split_into_two_that_share_nothing(self, data: Batches) -> None:
        prepared = prepare(data, 30, seed=1)
        calibration, evaluation = numbers(prepared.calibration), numbers(prepared.evaluation)
        assert prepared.source == "split"
        assert len(calibration) == prepared.calibration_images == 30
        assert sorted(calibration + evaluation) == list(range(100))

    def test_keeps_at_least_half_for_evaluation(self) -> None:
        assert prepare(batched(11), 30, seed=1).calibration_images == 5

    def test_is_split_the_same_way_with_the_same_seed(self) -> None:
        first, again, other = (numbers(prepare(batched(100), 30, seed).calibration) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_is_sampled_evenly(self) -> None:
        picked = [number for seed in range(200) for number in numbers(prepare(batched(40), 10, seed).calibration)]
        counts = torch.bincount(torch.tensor(picked), minlength=40)
        assert counts.min() > 20  # 50 expected, deviation 6
        assert counts.max() < 80

    def test_of_one_image_is_refused(self) -> None:
        with pytest.raises(DatasetError, match="too few"):
            prepare(batched(1), 30, seed=1)

    def test_keeps_images_with_their_labels(self) -> None:
        prepared = prepare(batched(50), 20, seed=3)
        for images, labels in [*prepared.calibration, *prepared.evaluation]:
            assert images[:, 0, 0, 0].tolist() == labels.tolist()


class TestTwoSets:
    def test_are_used_as_given(self) -> None:
        prepared = prepare(Splits(batched(40), [(images + 40, labels) for images, labels in batched(7)]), 1000, seed=1)
        assert sorted(numbers(prepared.calibration)) == list(range(40))
        assert numbers(prepared.evaluation) == list(range(40, 47))
        assert prepared.source == "given"
        assert prepared.evaluation.dropped == 0

    def test_that_overlap_lose_the_shared_images_from_evaluation_and_say_how_many(self) -> None:
        prepared = prepare(Splits(batched(10), batched(25)), 1000, seed=1)
        assert numbers(prepared.evaluation) == list(range(10, 25))
        assert numbers(prepared.evaluation) == list(range(10, 25))
        assert prepared.evaluation.dropped == 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("calibration", 4), ("test", 3)):
        for position, name in enumerate(("ant", "bee")):
            (tmp_path / "insects" / split / name).mkdir(parents=True)
            for number in range(count):
                color = (100 * position, 10 * number, 50 if split == "test" else 0)
                Image.new("RGB", (20, 24), color).save(tmp_path / "insects" / split / name / f"{number}.png")
    return tmp_path


def insects(folder: Path) -> DatasetInfo:
    return describe("local:insects", folder / "none", folder)


class TestHoldingOut:
    @pytest.mark.parametrize(("count", "one_in", "held"), [(190, 4, 47), (64, 64, 1), (130, 5, 26)])
    def test_takes_one_image_in_so_many_with_its_label(self, count: int, one_in: int, held: int) -> None:
        images = torch.arange(float(count)).view(-1, 1, 1, 1)
        data = prepare(Splits([(images, torch.arange(count))], [(images + count, torch.arange(count))]), count, seed=0)
        rest, held_out = hold_out(data, one_in)
        assert sum(len(labels) for _, labels in held_out) == held
        assert rest.calibration_images == count - held
        both = rest.calibration + held_out
        assert all(len(labels) == len(images) > 0 for images, labels in both)
        assert torch.cat([images.flatten() for images, _ in both]).sort().values.tolist() == list(range(count))
        for images, labels in both:
            assert images.flatten().tolist() == labels.tolist()

    def test_of_too_few_is_refused(self) -> None:
        images = torch.zeros(3, 1, 1, 1)
        data = prepare(Splits([(images, torch.arange(3))], [(images + 1, torch.arange(3))]), 16, seed=0)
        with pytest.raises(DatasetError, match="3 calibration images are too few to hold out one in 4"):
            hold_out(data, 4)


class TestFolders:
    def test_come_as_preprocessed_batches_with_labels_by_order(self, folder: Path) -> None:
        splits = open_splits(insects(folder), CONFIG, 100, seed=0)
        assert isinstance(splits, Splits)
        (images, labels), *more = splits.evaluation
        assert not more
        assert images.shape == (6, 3, 16, 16)
        assert labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert images[0].amin() == -1

    def test_take_labels_by_name_where_the_model_names_its_classes(self, folder: Path) -> None:
        config = CONFIG.model_copy(update={"class_names": ("bee", "cow", "ant")})
        (_, labels), *_ = open_splits(insects(folder), config, 100, seed=0).evaluation
        assert labels.tolist() == [2, 2, 2, 0, 0, 0]

    def test_with_a_class_that_the_model_has_not_are_refused(self, folder: Path) -> None:
        with pytest.raises(DatasetError, match="'bee'"):
            open_splits(insects(folder), CONFIG.model_copy(update={"class_names": ("ant", "cow")}), 100, seed=0)

    def test_become_grey_for_a_model_of_one_channel(self, folder: Path) -> None:
        grey = Preprocessing(input_size=(1, 16, 16), mean=(0.5,), std=(0.5,))
        (images, _), *_ = open_splits(
            insects(folder), CONFIG.model_copy(update={"preprocessing": grey}), 9, 0
        ).evaluation
        assert images.shape == (6, 1, 16, 16)

    def test_of_one_set_are_split(self, folder: Path) -> None:
        info = describe("local:test", folder / "none", folder / "insects")
        splits = open_splits(info, CONFIG, 100, seed=0)
        prepared = prepare(splits, 100, seed=0)
        assert prepared.source == "split"
        assert prepared.calibration_images == 3
        assert sum(len(images) for images, _ in prepared.evaluation) == 3

    def test_with_a_broken_image_name_it(self, folder: Path) -> None:
        (folder / "insects" / "test" / "bee" / "1.png").write_bytes(b"\x89PNG not quite")
        with pytest.raises(DatasetError, match=r"bee/1\.png"):
            list(open_splits(insects(folder), CONFIG, 100, seed=0).evaluation)


class TestNames:
    @pytest.mark.parametrize("name", ["local:../insects", "local:", "insects", "local:insects/..", "other:insects", ""])
    def test_outside_the_roots_are_unknown(self, folder: Path, name: str) -> None:
        with pytest.raises(UnknownDatasetError) as error:
            describe(name, folder / "none", folder)
        assert error.value.known == ["local:insects"]

    def test_of_splits_with_different_classes_are_refused(self, folder: Path) -> None:
        (folder / "insects" / "test" / "bee").rename(folder / "insects" / "test" / "wasp")
        with pytest.raises(DatasetError, match="different classes"):
            insects(folder)


class TestListedClasses:
    def test_give_the_order_of_labels_and_need_no_images(self, folder: Path) -> None:
        (folder / "insects" / "classes.txt").write_text("bee\ncow\nant\n")
        assert insects(folder).classes == ("bee", "cow", "ant")
        (_, labels), *_ = open_splits(insects(folder), CONFIG, 100, seed=0).evaluation
        assert labels.tolist() == [0, 0, 0, 2, 2, 2]

    @pytest.mark.parametrize(
        ("listed", "why"),
        [
            (b"bee\n", "does not list 'ant'"),
            (b"bee\nant\nbee\n", "twice"),
            (b"bee\nant\n..\n", "folder's name"),
            (b"b\xff", "UTF-8"),
        ],
    )
    def test_that_do_not_fit_the_folders_are_refused(self, folder: Path, listed: bytes, why: str) -> None:
        (folder / "insects" / "classes.txt").write_bytes(listed)
        with pytest.raises(DatasetError, match=why):
            insects(folder)
