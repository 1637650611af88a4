"""Where a timm model keeps what can be compressed: one adapter a module type, no model is told by its name."""

from collections.abc import Iterator

import torch
from timm.layers import Attention, AttentionRope, Mlp
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core.shapes import FeedForwardShape, LayerShape, LinearShape, ModelShape


def describe(model: nn.Module, input_size: tuple[int, int, int]) -> ModelShape:
    """The shapes of ``model``, seen in one forward pass of a blank image of ``input_size`` (channels, height, width).

    Works on the meta device too.
    """
    rows: dict[str, int] = {}

    def count_rows(path: str, x: Tensor) -> None:
        rows[path] = rows.get(path, 0) + x.shape[:-1].numel()

    handles = [
        module.register_forward_pre_hook(lambda _, args, path=path: count_rows(path, args[0]))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Mlp)
    ]
    try:
        macs = macs_of(model, input_size)
    finally:
        for handle in handles:
            handle.remove()
    layers, left_dense = [], {}
    for path, found in _compressible(model):
        if isinstance(found, str):
            left_dense[path] = found
        elif path not in rows:
            left_dense[path] = "its parent reads its weights without calling it"
        else:
            layers.append(_shape(path, found, rows[path]))
    return ModelShape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        layers=tuple(layers),
        left_dense=left_dense,
    )


def macs_of(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of the matrix products and convolutions of ``model`` on one image."""
    reference = next(model.parameters())
    image = torch.zeros(1, *input_size, device=reference.device, dtype=reference.dtype)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.eval()(image)
    return int(counter.get_total_flops()) // 2


def _compressible(model: nn.Module) -> Iterator[tuple[str, nn.Linear | Mlp | str]]:
    """Every candidate in forward order: the layer, or why it has to stay dense."""
    for path, module in model.named_modules():
        match module:
            case Attention() | AttentionRope():
                for name in ("qkv", "proj"):
                    linear = getattr(module, name, None)
                    if isinstance(linear, nn.Linear):
                        yield f"{path}.{name}", linear
                    else:
                        yield path, "its query, key and value maps are separate"
            case Mlp(fc1=nn.Linear(), fc2=nn.Linear()):
                yield path, module if isinstance(module.norm, nn.Identity) else "a norm stands between fc1 and fc2"
            case nn.Module() if type(module).__name__.endswith(("Attention", "Mlp", "SwiGLU", "AttentionPoolLatent")):
                yield path, f"no method knows a {type(module).__name__}"


def _shape(path: str, module: nn.Linear | Mlp, rows: int) -> LayerShape:
    if isinstance(module, nn.Linear):
        return LinearShape(
            path=path,
            tokens=rows,
            in_features=module.in_features,
            out_features=module.out_features,
            bias=module.bias is not None,
        )
    return FeedForwardShape(
        path=path,
        tokens=rows,
        in_features=module.fc1.in_features,
        hidden_features=module.fc1.out_features,
        out_features=module.fc2.out_features,
        bias=module.fc1.bias is not None,
    )
