"""What can be compressed in a timm model, told by the types of its modules and never by its name.

What ``vitpress.adapters`` can write as ``Attention`` or ``FeedForward`` is that, in any
family. Every other linear map of the body that is called as a module can still be factorised.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from core.shapes import AttentionShape, FeedForwardShape, LayerShape, LinearShape, ModelShape
from vitpress.adapters import canonical
from vitpress.layers import Attention, FeedForward

SMALLEST = 16  # inputs and outputs of a linear map that is worth factorising
BLOCK_TYPES = ("Attention", "Attn", "Mlp", "SwiGLU")  # in the names of types that somebody will look for in a report


def canonical_copy(model: nn.Module) -> nn.Module:
    """``model`` with every module that an adapter knows written as one of ours: the same function, new weights."""
    same = copy.deepcopy(model)
    for path, module in list(same.named_modules()):
        ours = canonical(module)
        if path and ours is not module:
            same.set_submodule(path, ours)
    return same


def describe(model: nn.Module, input_size: tuple[int, int, int]) -> ModelShape:
    """The shapes of ``model``, seen in one forward pass of a blank image of ``input_size`` (channels, height, width).

    Works on the meta device too.
    """
    ours = canonical_copy(model)
    seen: dict[str, torch.Size] = {}

    def remember(path: str, x: Tensor) -> None:
        before = seen.get(path)
        seen[path] = x.shape if before is None else torch.Size([before[0] + x.shape[0], *x.shape[1:]])

    found = dict(_compressible(ours))
    handles = [
        ours.get_submodule(path).register_forward_pre_hook(lambda _, args, path=path: remember(path, args[0]))
        for path in found
    ]
    try:
        macs = macs_of(ours, input_size)
    finally:
        for handle in handles:
            handle.remove()
    layers, left_dense = [], {}
    for path, module in found.items():
        if path in seen:
            parameters = sum(each.numel() for each in model.get_submodule(path).parameters())
            layers.append(_shape(path, module, parameters, seen[path]))
        else:
            left_dense[path] = "no forward pass calls it: its weights are read by another module, or by none"
    left_dense |= _unknown(ours, found)
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


def _compressible(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a canonical model: its attention and feed-forward blocks, and the linear maps outside of them."""
    outside = {id(module) for module in _heads(model)}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(inside) and inside:
            continue
        if isinstance(module, Attention | FeedForward):
            inside = (*inside, f"{path}.")
            yield path, module
        elif isinstance(module, nn.Linear) and id(module) not in outside and min(_features(module)) >= SMALLEST:
            yield path, module


def _heads(model: nn.Module) -> list[nn.Module]:
    """The classifiers: their outputs are the classes, and nothing is gained by a rank below their number."""
    head = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    heads = head if isinstance(head, tuple | list) else [head]
    return [each for each in heads if isinstance(each, nn.Module)]


def _unknown(model: nn.Module, known: dict[str, nn.Module]) -> dict[str, str]:
    """Modules that look like attention or feed-forward blocks, with no layer known at them or inside."""
    return {
        path: f"no adapter knows a {type(module).__name__}"
        for path, module in model.named_modules()
        if type(module).__name__.endswith(BLOCK_TYPES)
        and any(True for _ in module.parameters())
        and not any(each == path or each.startswith(f"{path}.") or path.startswith(f"{each}.") for each in known)
    }


def _shape(path: str, module: nn.Module, parameters: int, seen: torch.Size) -> LayerShape:
    tokens = seen[:-1].numel()
    dense_parameters = sum(each.numel() for each in module.parameters())
    match module:
        case Attention():
            in_features, out_features = _features(module.qkv)[0], _features(module.proj)[1]
            per_head = sum(part.per_head() for part in module.by_head())
            others = (module.q_norm, module.k_norm, module.norm, module.position_bias or nn.Identity())
            return AttentionShape(
                path=path,
                tokens=tokens,
                parameters=parameters,
                dense_parameters=dense_parameters,
                in_features=in_features,
                out_features=out_features,
                keys=seen[-2],
                heads=module.heads,
                head_dim=module.qk_dim,
                free_queries=module.free_queries,
                free_values=module.free_values,
                fixed=sum(each.numel() for part in others for each in part.parameters()) - module.heads * per_head,
                per_head=per_head,
            )
        case FeedForward():
            (in_features, width), (_, out_features) = _features(module.fc1), _features(module.fc2)
            return FeedForwardShape(
                path=path,
                tokens=tokens,
                parameters=parameters,
                dense_parameters=dense_parameters,
                in_features=in_features,
                out_features=out_features,
                hidden_features=width // (2 if module.gated else 1),
                gated=module.gated,
                free_units=module.free_units,
                fixed=sum(each.numel() for each in (*module.norm.parameters(), *module.act.parameters())),
            )
        case _:
            in_features, out_features = _features(module)
            return LinearShape(
                path=path,
                tokens=tokens,
                parameters=parameters,
                dense_parameters=dense_parameters,
                in_features=in_features,
                out_features=out_features,
            )


def _features(linear: nn.Module) -> tuple[int, int]:
    assert isinstance(linear, nn.Linear)
    return linear.in_features, linear.out_features
