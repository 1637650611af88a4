"""A checkpoint that anybody may have sent, as a model: built from an allowed architecture, compared, loaded strictly.

Nothing is built with memory before the checkpoint is known to have just the tensors that the architecture wants.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data import resolve_data_config
from torch import nn

from core import architectures
from core.allocate import check_some
from core.architectures import Arguments, InputChanges
from core.checkpoint_file import Header, read_header
from core.curves import curve
from core.errors import ArchitectureError, CheckpointError, CheckpointMismatchError, NumericalError, first_line
from core.families import describe
from core.forms import EVERY_FORM
from core.models import Loaded
from core.prior import prior
from core.shapes import ModelShape
from vitpress.artifact import ModelConfig, Preprocessing

MAX_LISTED = 50  # names of differing tensors, of each kind
MAX_PARAMETERS = 3 << 30  # half as many again as the catalogue's largest model
MAX_BUFFERS = 1 << 28  # elements that no checkpoint brings: masks and position tables
MAX_MACS = 10**13  # twenty times what the catalogue's most costly model needs for an image

DTYPES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
CONVERTED = frozenset({"F16", "BF16"})  # to F32, which holds every value of theirs


@dataclass(frozen=True)
class Checked:
    """``converted``: dtypes in the file that are not the model's."""

    model: nn.Module
    config: ModelConfig
    shape: ModelShape
    converted: tuple[str, ...]


def check(
    path: Path,
    architecture: str,
    arguments: Arguments = Arguments(),  # noqa: B008 - frozen
    changes: InputChanges = InputChanges(),  # noqa: B008 - frozen
    class_names: Sequence[str] | None = None,
) -> Checked:
    """The model on the CPU, in evaluation mode.

    Raises ``CheckpointError``, ``ArchitectureError``, ``CheckpointMismatchError``, ``NumericalError``,
    ``NothingToCompressError``.
    """
    header = read_header(path)
    blank = on_meta(architecture, arguments)
    if found := differences(header, blank):
        raise CheckpointMismatchError(found)
    config = _config(architecture, arguments, changes, class_names, blank)
    shape = _shape(blank, config.preprocessing.input_size)
    model = _filled(path, config)
    _try(model, config)
    wanted = {DTYPES.get(tensor.dtype) for tensor in blank.state_dict().values()}
    there = {tensor.dtype for tensor in header.tensors.values()}
    return Checked(model, config, shape, tuple(sorted(there - wanted)))


def load(path: Path, config: ModelConfig, device: torch.device) -> Loaded:
    """A model that was checked before. Raises ``CheckpointError`` where the file is no longer what it was."""
    return Loaded(_filled(path, config).to(device), config)


def on_meta(architecture: str, arguments: Arguments) -> nn.Module:
    """The model without memory. Raises ``ArchitectureError``, also for one that is too large."""
    architectures.check(architecture)
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(architecture, pretrained=False, **arguments.given())
    except Exception as error:  # constructors assert, divide and multiply as they like
        raise ArchitectureError(f"{architecture} cannot be built with these arguments: {_line(error)}") from error
    parameters = sum(each.numel() for each in model.parameters())
    if parameters > MAX_PARAMETERS:
        raise ArchitectureError(f"{architecture} would have {parameters} parameters; at most {MAX_PARAMETERS} may be")
    buffers = sum(each.numel() for each in model.buffers())
    if buffers > MAX_BUFFERS:
        raise ArchitectureError(
            f"{architecture} would have {buffers} elements of buffers; at most {MAX_BUFFERS} may be"
        )
    return model


def differences(header: Header, model: nn.Module) -> dict[str, dict[str, Any]]:
    """By kind: the ``total``, and the first ``names``, with what was expected and what is there. Empty: it fits."""
    wanted: Mapping[str, torch.Tensor] = model.state_dict()
    both = [(name, wanted[name], header.tensors[name]) for name in wanted if name in header.tensors]
    found = {
        "missing": [name for name in wanted if name not in header.tensors],
        "unexpected": [name for name in header.tensors if name not in wanted],
        "shape": [
            f"{name}: expected {list(ours.shape)}, got {list(theirs.shape)}"
            for name, ours, theirs in both
            if tuple(ours.shape) != theirs.shape
        ],
        "dtype": [
            f"{name}: expected {DTYPES.get(ours.dtype, ours.dtype)}, got {theirs.dtype}"
            for name, ours, theirs in both
            if not _fits(ours.dtype, theirs.dtype)
        ],
    }
    return {kind: {"total": len(names), "names": names[:MAX_LISTED]} for kind, names in found.items() if names}


def _fits(ours: torch.dtype, theirs: str) -> bool:
    return DTYPES.get(ours) == theirs or (ours is torch.float32 and theirs in CONVERTED)


def _config(
    architecture: str,
    arguments: Arguments,
    changes: InputChanges,
    class_names: Sequence[str] | None,
    model: nn.Module,
) -> ModelConfig:
    classes = getattr(model, "num_classes", 0)
    if class_names is not None and len(class_names) != classes:
        raise ArchitectureError(f"the model has {classes} classes, and {len(class_names)} names were given")
    return ModelConfig(
        architecture=architecture,
        kwargs=arguments.given() | {"num_classes": classes},
        preprocessing=_preprocessing(arguments, changes, model),
        class_names=None if class_names is None else tuple(class_names),
    )


def _preprocessing(arguments: Arguments, changes: InputChanges, model: nn.Module) -> Preprocessing:
    default = resolve_data_config({}, pretrained_cfg=model.pretrained_cfg)
    channels, height, width = default["input_size"]
    if arguments.in_chans is not None:
        channels = arguments.in_chans
    if arguments.img_size is not None:
        height, width = arguments.img_size if isinstance(arguments.img_size, tuple) else (arguments.img_size,) * 2
    given = changes.model_dump(exclude_none=True)
    for name in ("mean", "std"):
        if channels == 1 and len(default[name]) > 1:  # grey, whose values are the colours' on average
            default[name] = (sum(default[name]) / len(default[name]),)
        elif channels != len(default[name]):
            default[name] = (0.5,) * channels
    chosen = default | {"input_size": (channels, height, width)} | given
    for name in ("mean", "std"):
        if len(chosen[name]) != chosen["input_size"][0]:
            raise ArchitectureError(
                f"{name} must have a value for each of {chosen['input_size'][0]} channels, got {len(chosen[name])}"
            )
    return Preprocessing(**chosen)


def _shape(model: nn.Module, input_size: tuple[int, int, int]) -> ModelShape:
    try:
        shape = describe(model, input_size)
    except Exception as error:  # whatever a forward pass raises for an image that is not what it expects
        raise ArchitectureError(f"the model takes no image of {input_size}: {_line(error)}") from error
    if shape.macs > MAX_MACS:
        raise ArchitectureError(f"an image would take {shape.macs} multiply-accumulates; at most {MAX_MACS} may be")
    check_some([curve(layer, prior(layer, EVERY_FORM)) for layer in shape.layers])
    return shape


def _filled(path: Path, config: ModelConfig) -> nn.Module:
    model: nn.Module = timm.create_model(config.architecture, pretrained=False, **config.kwargs)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(_line(error)) from error
    return model.eval()


@torch.inference_mode()
def _try(model: nn.Module, config: ModelConfig) -> None:
    """One blank image must give one logit a class, and no weight may be what no training leaves."""
    broken = [
        name for name, each in model.state_dict().items() if each.is_floating_point() and not each.isfinite().all()
    ]
    if broken:
        more = f" and {len(broken) - MAX_LISTED} more" if len(broken) > MAX_LISTED else ""
        raise NumericalError(f"values that are not finite in {', '.join(broken[:MAX_LISTED])}{more}")
    try:
        logits = model(torch.zeros(1, *config.preprocessing.input_size))
    except Exception as error:
        raise ArchitectureError(f"the model cannot be run: {_line(error)}") from error
    expected = (1, config.kwargs["num_classes"])
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ArchitectureError(f"the model must give logits of {expected} for an image, got {got}")
    if not logits.isfinite().all():
        raise NumericalError("the model gives logits that are not finite for a blank image")


def _line(error: Exception) -> str:
    return first_line(error)[:500]
