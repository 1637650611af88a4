"""A model as one residual stream through pre-norm blocks, walked block by block, as the re-fit needs it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.data import Batches

PRE_NORM = (Block, BeitBlock, EvaBlock)  # x + scale(attn(norm1(x))), then y + scale(mlp(norm2(y)))

TRIED = 8  # images: what every block gets is kept in memory meanwhile

Stream = Sequence[Float[Tensor, "images tokens dim"]]  # one tensor a batch, on the CPU


@dataclass(frozen=True)
class Walk:
    """The paths of the blocks in their order, what each gets beside the stream, and the stream before the first.

    ``classified``: the last stream's ``features`` are what the classifier, one linear map, gets.
    """

    paths: tuple[str, ...]
    extras: tuple[Mapping[str, Any], ...]
    start: Stream
    classified: bool


@torch.no_grad()
def walk(model: nn.Module, data: Batches) -> Walk | None:
    """None where ``model`` is no such stream: then the walk, tried on some images, gives something else than it."""
    paths = tuple(path for path, module in model.named_modules() if isinstance(module, PRE_NORM))
    if not paths:
        return None
    device = next(model.parameters()).device
    inputs: dict[str, Tensor] = {}
    extras: dict[str, dict[str, Any]] = {}
    outputs: dict[str, Tensor] = {}

    def before(path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs[path], extras[path] = args[0], kwargs

    def after(path: str, output: Tensor) -> None:
        outputs[path] = output

    blocks = [model.get_submodule(path) for path in paths]
    handles = [
        block.register_forward_pre_hook(lambda _, args, kwargs, path=path: before(path, args, kwargs), with_kwargs=True)
        for path, block in zip(paths, blocks, strict=True)
    ] + [
        block.register_forward_hook(lambda _, __, output, path=path: after(path, output))
        for path, block in zip(paths, blocks, strict=True)
    ]
    try:
        images, _ = next(iter(data))
        answers = model(images[:TRIED].to(device))
    finally:
        for handle in handles:
            handle.remove()
    if set(inputs) != set(paths) or not all(inputs[each] is outputs[last] for last, each in pairwise(paths)):
        return None
    for path, block in zip(paths, blocks, strict=True):
        again = after_feed_forward(block, after_attention(block, inputs[path], extras[path]))
        if not torch.allclose(again, outputs[path], rtol=1e-3, atol=1e-4):
            return None
    return Walk(
        paths,
        tuple(extras[path] for path in paths),
        list(_stream_before(model, paths[0], data)),
        classified=_is_classified(model, outputs[paths[-1]], answers),
    )


def _is_classified(model: nn.Module, last: Tensor, answers: Tensor) -> bool:
    if not (isinstance(getattr(model, "norm", None), nn.Module) and isinstance(classifier(model), nn.Linear)):
        return False
    again = classifier(model)(features(model, last))
    return again.shape == answers.shape and torch.allclose(again, answers, rtol=1e-3, atol=1e-4)


def features(model: nn.Module, stream: Float[Tensor, "images tokens dim"]) -> Float[Tensor, "images features"]:
    """What the classifier of a timm model gets, from the stream after the last block."""
    found: Tensor = model.forward_head(model.get_submodule("norm")(stream), pre_logits=True)  # type: ignore[operator]
    return found


def classifier(model: nn.Module) -> nn.Module:
    """Of a timm model."""
    found: nn.Module = model.get_classifier()  # type: ignore[operator]
    return found


def after_attention(block: nn.Module, x: Tensor, extras: Mapping[str, Any]) -> Tensor:
    """(images, tokens, dim) on the block's device."""
    attended = block.get_submodule("attn")(block.get_submodule("norm1")(x), **extras)
    y: Tensor = x + scale(block, 1) * attended
    return y


def after_feed_forward(block: nn.Module, y: Tensor) -> Tensor:
    """(images, tokens, dim) on the block's device."""
    fed = block.get_submodule("mlp")(block.get_submodule("norm2")(y))
    z: Tensor = y + scale(block, 2) * fed
    return z


def scale(block: nn.Module, which: int) -> Tensor | float:
    """The layer scale of a block's attention (1) or feed-forward (2) branch: (dim,), or 1."""
    gamma = getattr(getattr(block, f"ls{which}", None), "gamma", None)
    gamma = getattr(block, f"gamma_{which}", None) if gamma is None else gamma
    return 1.0 if gamma is None else gamma


def _stream_before(model: nn.Module, path: str, data: Batches) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    for images, _ in data:
        yield input_of(model.get_submodule(path), model, images.to(device)).cpu()


class _SeenError(Exception):
    """The input looked for has come by; the rest of the forward pass is not wanted."""


def input_of(module: nn.Module, root: nn.Module, x: Tensor, **extras: Any) -> Tensor:
    """What ``module`` gets when ``root``, which holds it, is called with ``x``."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])
        raise _SeenError

    handle = module.register_forward_pre_hook(stop)
    try:
        root(x, **extras)
    except _SeenError:
        pass
    finally:
        handle.remove()
    return seen[0]
