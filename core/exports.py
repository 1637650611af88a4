"""A compressed model for other runtimes: ONNX, the same in 8 bits, ``torch.export``. Each file is read back and run.

What a runtime cannot express costs that one file, not the job: it is listed with the reason.
"""

import copy
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from operator import length_hint
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.data import Batches
from core.measure import proportion
from core.progress import OnProgress, Progress, Stage, ignore
from core.recipe import ExportFormat
from core.report import Accuracy, Export, Proportion
from vitpress.layers import Pivoted, linear_of

# onnx and onnxruntime take a second to import: the functions that need them do, and jobs without exports do not pay.

FILES: dict[ExportFormat, str] = {
    "onnx": "model.onnx",
    "onnx-int8": "model.int8.onnx",
    "torch-export": "model.pt2",
}
TOLERANCE = 1e-3  # of the largest logit, or of 1; the exports of 39 untrained models of timm's families stay below 1e-5
ONNX_BYTES = 2**31 - 1  # of one protobuf message, which an ONNX file is
REASON_CHARACTERS = 500

_SDPA = torch.ops.aten.scaled_dot_product_attention.default

Run = Callable[[Tensor], Tensor]  # images (batch, channels, height, width) → logits (batch, classes), on the CPU

log = logging.getLogger(__name__)


class _ExportFailedError(Exception):
    """Why there is no such file, in one line."""


def write(
    model: nn.Module,
    formats: tuple[ExportFormat, ...],
    directory: Path,
    *,
    images: Tensor,
    evaluation: Batches,
    on_progress: OnProgress = ignore,
) -> tuple[Export, ...]:
    """Write ``model`` into ``directory`` in each of ``formats``, as a file of ``FILES`` that takes batches of any size.

    Each file is loaded again and compared with ``model`` on ``images`` (images, channels, height, width), once alone
    and once together with others. What 8 bits cost is measured on ``evaluation`` as well. Everything runs on the CPU,
    on a copy of ``model``, which is left where and as it is. One that fails is listed with its error.
    """
    if not formats:
        return ()
    with TemporaryDirectory() as scratch:
        source = _Source(model, images, Path(scratch))
        done = []
        for index, name in enumerate(formats):

            def share(fraction: float, index: int = index) -> None:
                on_progress(Progress(Stage.EXPORT, (index + fraction) / len(formats)))

            share(0.0)
            done.append(_export(source, name, directory / FILES[name], evaluation, share))
    on_progress(Progress(Stage.EXPORT, 1.0))
    return tuple(done)


def _export(
    source: "_Source", name: ExportFormat, file: Path, evaluation: Batches, on_fraction: Callable[[float], None]
) -> Export:
    start = time.monotonic()
    try:
        run = _write_and_load(source, name, file)
        difference, agreement = _compare(source, run, exact=name != "onnx-int8")
        accuracy = _accuracy(run, evaluation, on_fraction) if name == "onnx-int8" else None
    except _ExportFailedError as error:
        log.warning("no %s export: %s", name, error, exc_info=True)
        file.unlink(missing_ok=True)
        return Export(
            format=name,
            file=None,
            file_bytes=None,
            max_abs_difference=None,
            agreement=None,
            accuracy=None,
            seconds=time.monotonic() - start,
            error=str(error),
        )
    return Export(
        format=name,
        file=file.name,
        file_bytes=file.stat().st_size,
        max_abs_difference=difference,
        agreement=agreement,
        accuracy=accuracy,
        seconds=time.monotonic() - start,
        error=None,
    )


@contextmanager
def _export_errors() -> Iterator[None]:
    """Exporters raise whatever they like; nothing else may run inside, lest it be taken for theirs."""
    try:
        yield
    except Exception as error:
        raise _ExportFailedError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """The first line of the first cause: what is wrapped around it says how to ask for help."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {line}"[:REASON_CHARACTERS]


# ---------------------------------------------------------------- files


class _Source:
    """The model on the CPU, the images to compare on with its logits, and the graphs that more than one file needs."""

    def __init__(self, model: nn.Module, images: Tensor, scratch: Path) -> None:
        self.model = _whole(copy.deepcopy(model).cpu().eval()).requires_grad_(False)
        images = images.cpu() if len(images) > 1 else images.cpu().repeat(2, 1, 1, 1)
        self.batches = images[:1], images[1:]
        with torch.inference_mode():
            self.logits = torch.cat([self.model(batch) for batch in self.batches])
        self._scratch = scratch

    @cached_property
    def graph(self) -> ExportedProgram:
        """Traced on blank images, and without any trace of this machine: files are for others."""
        blank = torch.zeros_like(self.batches[0]).repeat(2, 1, 1, 1)
        # The fused kernels' memory layouts must not become the graph's: those of other devices, and ONNX's, differ.
        with sdpa_kernel(SDPBackend.MATH):
            graph = torch.export.export(self.model, (blank,), dynamic_shapes=({0: Dim("batch")},))
        graph.example_inputs = None  # it would be stored, and pickled
        for module in graph.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)  # paths of this machine
        return graph

    @cached_property
    def onnx(self) -> Path:
        size = sum(each.numel() * each.element_size() for each in self.model.state_dict().values())
        if size > ONNX_BYTES:
            raise ValueError(f"{size / 1e9:.1f} GB of weights do not fit into one ONNX file, which holds 2 GB")
        with sdpa_kernel(SDPBackend.MATH):
            # The converter's own attention knows four dimensions alone, and some models' windows make five.
            plain = self.graph.run_decompositions({_SDPA: torch.export.default_decompositions()[_SDPA]})
            program = torch.onnx.export(
                plain,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),
                verbose=False,
            )
        assert program is not None
        file = self._scratch / FILES["onnx"]
        program.save(file, external_data=False)
        return file


def _whole(model: nn.Module) -> nn.Module:
    """``model`` with the pivots' rows in its matrices: runtimes multiply by constants, and 8 bits are for these."""
    for path, module in list(model.named_modules()):
        if isinstance(module, Pivoted):
            model.set_submodule(path, linear_of(module.matrix(), module.bias))
    return model


@_export_errors()
def _write_and_load(source: _Source, name: ExportFormat, file: Path) -> Run:
    match name:
        case "onnx":
            shutil.copyfile(source.onnx, file)
            return _onnx_session(file)
        case "onnx-int8":
            _quantise(source.onnx, file)
            return _onnx_session(file)
        case "torch-export":
            torch.export.save(source.graph, file)
            return torch.export.load(file).module()


def _quantise(source: Path, file: Path) -> None:
    """Weights of linear maps in 8 bits, one scale an output; their inputs in 8 bits too, one scale a call.

    Convolutions, which embed the patches, stay: they are little, and their integer kernels are slow.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.load(source)
    add_pre_process_metadata(model)  # true: torch's exporter has inferred the shapes; without it there is a warning
    quantize_dynamic(
        model,
        file,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        # Seven bits of weights. With eight, sums of two products overflow 16 bits on x86 CPUs before VNNI, and the
        # accuracy measured here would not be that of other machines.
        reduce_range=True,
    )


def _onnx_session(file: Path) -> Run:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return run


# ---------------------------------------------------------------- checks


def _compare(source: _Source, run: Run, *, exact: bool) -> tuple[float, Proportion]:
    """The largest absolute difference between the file's logits and the model's, and how often they mean the same."""
    logits = torch.cat([_logits(run, batch) for batch in source.batches])
    difference = float((logits - source.logits).abs().max())
    allowed = TOLERANCE * max(1.0, float(source.logits.abs().max()))
    if exact and difference > allowed:
        raise _ExportFailedError(f"its logits are up to {difference:.3g} from the model's, more than {allowed:.3g}")
    return difference, proportion(logits.argmax(-1) == source.logits.argmax(-1))


def _accuracy(run: Run, evaluation: Batches, on_fraction: Callable[[float], None]) -> Accuracy:
    total = length_hint(evaluation)  # batches; 0: it cannot say
    hits, classes = [], 0
    for index, (images, labels) in enumerate(evaluation):
        logits = _logits(run, images.cpu())
        classes = logits.shape[-1]
        hits.append(logits.topk(min(5, classes)).indices == torch.as_tensor(labels).cpu()[:, None])
        if total:
            on_fraction(min(1.0, (index + 1) / total))
    every = torch.cat(hits)
    return Accuracy(
        top1=proportion(every[:, 0]), top5=proportion(every.any(1)) if classes > 5 else None, images=len(every)
    )


@_export_errors()
@torch.inference_mode()
def _logits(run: Run, images: Tensor) -> Tensor:
    logits = run(images)
    if not logits.isfinite().all():
        raise ValueError("its logits are not finite")
    return logits
