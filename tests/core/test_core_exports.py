import copy
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_vit import CLASSES, Make, small_batches, small_vit
from torch import Tensor, nn

from core import artifact, exports, measure
from core.exports import FILES
from core.pipeline import Compressed, compress
from core.progress import Progress, Stage
from core.recipe import ExportFormat, FisherRecipe
from core.report import Export, Report
from examples import CONFIG

Batches = list[tuple[Tensor, Tensor]]

ALL: tuple[ExportFormat, ...] = ("onnx", "onnx-int8", "torch-export")

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LATENCY_SECONDS", 0.02)


def write(model: nn.Module, batches: Batches, directory: Path, *formats: ExportFormat) -> tuple[Export, ...]:
    return exports.write(model, formats, directory, images=batches[0][0], evaluation=batches[1:])


@torch.inference_mode()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)  # type: ignore[no-any-return]


def onnx_logits(file: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


@dataclass(frozen=True)
class Exported:
    """A model in all formats, which takes seconds: once for all that is to be seen of it."""

    model: nn.Module
    as_it_was: dict[str, Tensor]
    directory: Path
    onnx: Export
    eight_bits: Export
    torch_export: Export


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    vit = small_vit().train()
    before, directory = copy.deepcopy(vit.state_dict()), tmp_path_factory.mktemp("exported")
    listed = write(vit, small_batches(), directory, *ALL)
    return Exported(vit, before, directory, *listed)


class TestOnnx:
    def test_gives_the_models_logits_for_batches_of_any_size(self, exported: Exported, batches: Batches) -> None:
        listed = exported.onnx
        assert (listed.format, listed.file, listed.error) == ("onnx", "model.onnx", None)
        for size in (1, 2, 31):
            images = batches[2][0][:size]
            found = onnx_logits(exported.directory / "model.onnx", images)
            torch.testing.assert_close(found, logits(exported.model, images), rtol=1e-4, atol=1e-5)

    def test_is_one_valid_file_with_named_ends(self, exported: Exported) -> None:
        file = exported.directory / "model.onnx"
        assert exported.onnx.file_bytes == file.stat().st_size
        model = onnx.load(file)
        onnx.checker.check_model(model, full_check=True)
        (images,), (scores,) = model.graph.input, model.graph.output
        assert [each.dim_param or each.dim_value for each in images.type.tensor_type.shape.dim] == ["batch", 2, 12, 12]
        assert (images.name, scores.name) == ("images", "logits")

    def test_lists_its_difference_from_the_model(self, exported: Exported, batches: Batches) -> None:
        images, file = batches[0][0], exported.directory / "model.onnx"
        found = torch.cat([onnx_logits(file, part) for part in (images[:1], images[1:])])
        difference = float((found - logits(exported.model, images)).abs().max())
        assert exported.onnx.max_abs_difference == pytest.approx(difference, abs=1e-6)
        assert exported.onnx.agreement is not None
        assert exported.onnx.agreement.value == 1
        assert exported.onnx.accuracy is None


class TestTorchExport:
    def test_gives_the_models_logits_for_batches_of_any_size(self, exported: Exported, batches: Batches) -> None:
        listed = exported.torch_export
        assert (listed.format, listed.file, listed.error) == ("torch-export", "model.pt2", None)
        again = torch.export.load(exported.directory / "model.pt2").module()
        for size in (1, 2, 31):
            images = batches[2][0][:size]
            torch.testing.assert_close(logits(again, images), logits(exported.model, images))

    def test_holds_no_pickle_no_image_and_no_path_of_this_machine(self, exported: Exported) -> None:
        with ZipFile(exported.directory / "model.pt2") as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        assert not any(
            content.startswith((b"PK", b"\x80")) for name, content in contents.items() if "weight_" not in name
        )
        assert not any(content for name, content in contents.items() if "sample_inputs" in name)
        assert not any(str(Path(torch.__file__).parents[1]).encode() in content for content in contents.values())


class TestEightBits:
    def test_make_a_smaller_file_with_a_measured_accuracy(
        self, make_vit: Make, batches: Batches, tmp_path: Path
    ) -> None:
        vit = make_vit(embed_dim=66, num_classes=5, depth=1)  # large enough for weights to outweigh the graph
        labelled = [(images, logits(vit, images).argmax(-1)) for images, _ in batches]  # so that the model is right
        plain, small = write(vit, labelled, tmp_path, "onnx", "onnx-int8")
        assert plain.file_bytes is not None
        assert small.file_bytes is not None
        assert small.file_bytes < 0.5 * plain.file_bytes
        assert small.accuracy is not None
        right = torch.cat(
            [onnx_logits(tmp_path / "model.int8.onnx", images).argmax(-1) == labels for images, labels in labelled[1:]]
        )
        assert small.accuracy.images == len(right) == sum(len(labels) for _, labels in labelled[1:])
        assert small.accuracy.top1.value == pytest.approx(float(right.double().mean()))
        assert small.accuracy.top5 is None
        assert small.accuracy.top1.value > 0.8
        assert small.max_abs_difference is not None
        assert plain.max_abs_difference is not None
        assert small.max_abs_difference > 10 * plain.max_abs_difference

    def test_compute_in_eight_bits(self, exported: Exported) -> None:
        operators = {node.op_type for node in onnx.load(exported.directory / "model.int8.onnx").graph.node}
        assert {"MatMulInteger", "DynamicQuantizeLinear"} <= operators
        assert "Conv" in operators

    def test_can_be_had_without_the_floats(self, batches: Batches, tmp_path: Path) -> None:
        write(Windows(), batches, tmp_path, "onnx-int8")
        assert [path.name for path in tmp_path.iterdir()] == ["model.int8.onnx"]

    def test_count_the_five_best_answers_too_where_there_are_more(self, exported: Exported) -> None:
        listed = exported.eight_bits
        assert listed.accuracy is not None
        assert listed.accuracy.top5 is not None
        assert listed.accuracy.top5.value > listed.accuracy.top1.value


class Parts(nn.Module):
    """What compressed models are made of, in one: unequal widths of keys and values, split, and index_add."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.head = nn.Linear(11, 3 * (5 + 5 + 7)), nn.Linear(21, 11), nn.Linear(11, CLASSES)
        self.rows = nn.Linear(11, 2, bias=False)
        self.register_buffer("places", torch.tensor([1, 5]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, : 26 * 11].unflatten(1, (26, 11))
        q, k, v = (each.unflatten(-1, (3, -1)).transpose(1, 2) for each in self.qkv(x).split([15, 15, 21], -1))
        z = F.scaled_dot_product_attention(q, k, v, scale=0.3)
        y = self.proj(z.transpose(1, 2).flatten(2))
        scores: Tensor = self.head(y).index_add(-1, self.get_buffer("places"), self.rows(y))
        return scores.mean(1)


class Windows(nn.Module):
    """Attention over five dimensions: batch, windows, heads, tokens, width."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(12, 3 * 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 3)).permute(3, 0, 1, 4, 2, 5)
        z = F.scaled_dot_product_attention(q, k, v)
        return self.head(z.transpose(2, 3).flatten(3)).mean((1, 2))  # type: ignore[no-any-return]


class TestAnyModule:
    @pytest.mark.parametrize("make", [Parts, Windows])
    def test_is_exported_by_what_it_computes(self, make: type[nn.Module], batches: Batches, tmp_path: Path) -> None:
        torch.manual_seed(0)
        listed = write(make(), batches, tmp_path, "onnx", "torch-export")
        assert [each.error for each in listed] == [None, None]
        assert all(each.max_abs_difference is not None and each.max_abs_difference < 1e-5 for each in listed)

    @pytest.mark.parametrize(
        "kwargs", [{"global_pool": "map"}, {"class_token": False, "global_pool": "avg"}, {"reg_tokens": 3}]
    )
    def test_of_timms_variants_is_exported(
        self, make_vit: Make, batches: Batches, tmp_path: Path, kwargs: dict[str, Any]
    ) -> None:
        listed = write(make_vit(depth=1, **kwargs), batches, tmp_path, "onnx", "torch-export")
        assert [each.error for each in listed] == [None, None]

    def test_is_left_as_it_is(self, exported: Exported) -> None:
        assert exported.model.training
        assert all(parameter.requires_grad for parameter in exported.model.parameters())
        torch.testing.assert_close(exported.model.state_dict(), exported.as_it_was, rtol=0, atol=0)

    def test_may_be_checked_on_a_single_image(self, batches: Batches, tmp_path: Path) -> None:
        (listed,) = exports.write(Windows(), ("onnx",), tmp_path, images=batches[0][0][:1], evaluation=batches)
        assert listed.error is None


class Counting(nn.Module):
    """Asks for the batch's size as a plain number, which no graph for batches of any size has."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(288, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(image.flatten())[None] for image in x])


class Eigenvalues(nn.Module):
    """Has an operator that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean(1)[:, :CLASSES, :CLASSES]
        values: Tensor = torch.linalg.eigvalsh(x @ x.mT)
        return values * self.scale


class TestAnExportThatFails:
    def test_for_want_of_an_operator_is_listed_and_the_others_are_made(self, batches: Batches, tmp_path: Path) -> None:
        lacking, small, fine = write(Eigenvalues(), batches, tmp_path, *ALL)
        for failed in (lacking, small):
            assert failed.error is not None
            assert "eigh" in failed.error
            assert (failed.file, failed.file_bytes, failed.max_abs_difference, failed.accuracy) == (None,) * 4
        assert (fine.file, fine.error) == ("model.pt2", None)
        assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]

    def test_to_take_batches_of_any_size_is_listed(self, batches: Batches, tmp_path: Path) -> None:
        listed = write(Counting(), batches, tmp_path, *ALL)
        assert all(each.error is not None and "batch" in each.error for each in listed)
        assert list(tmp_path.iterdir()) == []

    def test_to_say_what_the_model_says_is_not_handed_out(
        self, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "TOLERANCE", 1e-12)
        (listed,) = write(Windows(), batches, tmp_path, "onnx")
        assert listed.error is not None
        assert "from the model's" in listed.error
        assert list(tmp_path.iterdir()) == []

    def test_to_fit_into_one_file_is_listed(
        self, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exports, "ONNX_BYTES", 1009)
        (listed,) = write(Windows(), batches, tmp_path, "onnx")
        assert listed.error is not None
        assert "one ONNX file" in listed.error

    def test_is_not_what_a_listener_that_raises_is(self, batches: Batches, tmp_path: Path) -> None:
        """That is how a job stops which is no longer the worker's own."""

        def refuse(progress: Progress) -> None:
            if progress.fraction > 0:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            exports.write(
                Windows(), ("onnx-int8",), tmp_path, images=batches[0][0], evaluation=batches, on_progress=refuse
            )


class TestACompression:
    @pytest.fixture
    def compressed(self, batches: Batches) -> Compressed:
        import timm

        torch.manual_seed(0)
        recipe = FisherRecipe(target_ratio=0.4, calibration_images=64, exports=ALL)
        return compress(timm.create_model(CONFIG.architecture, **CONFIG.kwargs), recipe, batches)

    def test_comes_with_the_files_asked_for(self, compressed: Compressed, batches: Batches, tmp_path: Path) -> None:
        heard: list[Progress] = []
        report = artifact.export(compressed, CONFIG, tmp_path, heard.append)
        assert [each.format for each in report.exports] == list(ALL)
        assert [each.error for each in report.exports] == [None] * 3
        assert {path.name for path in tmp_path.iterdir()} == {
            "model.safetensors", "config.json", "plan.json", "report.json", "evidence.json", *FILES.values()
        }  # fmt: skip
        assert Report.model_validate_json((tmp_path / "report.json").read_text()) == report
        images = batches[3][0]
        torch.testing.assert_close(
            onnx_logits(tmp_path / "model.onnx", images), logits(compressed.model, images), rtol=1e-4, atol=1e-5
        )
        accuracy = report.exports[1].accuracy
        assert accuracy is not None
        assert accuracy.images == report.after.accuracy.images
        assert {each.stage for each in heard} == {Stage.EXPORT}
        fractions = [each.fraction for each in heard]
        assert fractions == sorted(fractions)
        assert (fractions[0], fractions[-1]) == (0, 1)


class TestARecipe:
    def test_exports_nothing_by_default(self) -> None:
        assert FisherRecipe(target_ratio=0.5).exports == ()

    def test_takes_each_format_once_and_no_other(self) -> None:
        for wrong in (["onnx", "onnx"], ["tflite"]):
            with pytest.raises(ValidationError):
                FisherRecipe.model_validate({"target_ratio": 0.5, "exports": wrong})
        text = json.dumps({"target_ratio": 0.5, "exports": list(ALL)})
        assert FisherRecipe.model_validate_json(text).exports == ALL


class TestAModelOnAGpu:
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_is_exported_from_a_copy_on_the_cpu(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        listed = write(vit.cuda(), batches, tmp_path, *ALL)
        assert [each.error for each in listed] == [None] * 3
        assert next(vit.parameters()).is_cuda
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = torch.export.load(tmp_path / "model.pt2").module()
        assert next(again.parameters()).device.type == "cpu"
