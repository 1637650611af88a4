"""Sequential re-fit: every map that the compressed stream flows through learns to bring it back to the original's.

Block by block, with x the residual stream before a block, y after its attention and z after its feed-forward part,
each map is solved for in closed form from the *compressed* stream's inputs to what makes the *original* stream:

    qkv (its second factor)  →  the original's queries, keys and values
    proj                     →  (y_original − x_compressed) / γ₁
    fc2                      →  (z_original − y_compressed) / γ₂

so that no error travels further than it must. Each is a ridge regression anchored at the weights there are, over the
tokens of all calibration images, weighted by how much the loss minds each token (``Moments.token_weights``). Its
ridge is the one of ``RIDGES`` that predicts a held-out fifth of those images best, errors taken in the metric G.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from core.calibrate import Moments
from core.data import Batches
from core.running import RunningMoments

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # times the mean diagonal of the inputs' covariance
HELD_OUT = 5  # one image in so many chooses the ridge

Stream = Sequence[Float[Tensor, "images tokens dim"]]  # one tensor a batch, on the CPU


def can_refit(model: nn.Module) -> bool:
    """Whether ``model`` is one stream through pre-norm blocks, which the formulas above are about."""
    blocks = getattr(model, "blocks", None)
    return isinstance(blocks, nn.Sequential) and all(type(block) is Block for block in blocks)


@torch.no_grad()
def refit_(
    compressed: nn.Module,
    original: nn.Module,
    data: Batches,
    moments: dict[str, Moments],
    on_block: Callable[[float], None],
) -> None:
    """Re-fit ``compressed`` in place, block by block. ``on_block`` hears the fraction of the blocks done."""
    x_original: Stream = list(_block_inputs(original, data))
    x_compressed = x_original
    depth = len(original.blocks)  # type: ignore[arg-type]
    for index in range(depth):
        old, new = original.get_submodule(f"blocks.{index}"), compressed.get_submodule(f"blocks.{index}")
        assert isinstance(old, Block)
        assert isinstance(new, Block)
        prefix = f"blocks.{index}."
        known = {path.removeprefix(prefix): each for path, each in moments.items() if path.startswith(prefix)}
        x_original, x_compressed = _refit_block_(old, new, x_original, x_compressed, known)
        on_block((index + 1) / depth)


def _refit_block_(
    old: Block, new: Block, x_original: Stream, x_compressed: Stream, moments: dict[str, Moments]
) -> tuple[Stream, Stream]:
    """Re-fit one block in place. Both streams before it in, both streams after it out."""
    device = next(old.parameters()).device

    def both(one: Stream, other: Stream) -> Iterator[tuple[Tensor, Tensor]]:
        return ((a.to(device), b.to(device)) for a, b in zip(one, other, strict=True))

    if "attn.qkv" in moments and isinstance(qkv := new.get_submodule("attn.qkv"), nn.Sequential):
        qkv_of = old.get_submodule("attn.qkv")
        _fit_(
            _writer(qkv),
            ((qkv[0](new.norm1(x)), qkv_of(old.norm1(x_o))) for x_o, x in both(x_original, x_compressed)),
            moments["attn.qkv"],
        )

    y_original = [_after_attention(old, x.to(device)).cpu() for x in x_original]
    if "attn.proj" in moments:
        proj = _writer(new.get_submodule("attn.proj"))
        _fit_(
            proj,
            (
                (_input_of(proj, new.attn, new.norm1(x)), (y_o - x) / _scale(new.ls1))
                for y_o, x in both(y_original, x_compressed)
            ),
            moments["attn.proj"],
        )

    y_compressed = [_after_attention(new, x.to(device)).cpu() for x in x_compressed]
    z_original = [_after_feed_forward(old, y.to(device)).cpu() for y in y_original]
    if "mlp.fc2" in moments:
        fc2 = _writer(new.get_submodule("mlp.fc2"))
        _fit_(
            fc2,
            (
                (_input_of(fc2, new.mlp, new.norm2(y)), (z_o - y) / _scale(new.ls2))
                for z_o, y in both(z_original, y_compressed)
            ),
            moments["mlp.fc2"],
        )
    return z_original, [_after_feed_forward(new, y.to(device)).cpu() for y in y_compressed]


def _fit_(linear: nn.Linear, examples: Iterable[tuple[Tensor, Tensor]], moments: Moments) -> None:
    """Solve for ``linear`` in place. One without a bias, or seen on one image alone, is left as it is."""
    if linear.bias is None or len(moments.token_weights) < 2:
        return
    fit, held, everything = RunningMoments(), RunningMoments(), RunningMoments()
    start = 0
    for x, t in examples:
        weights = moments.token_weights[start : start + len(x)].to(x.device)
        chosen = torch.arange(start, start + len(x), device=x.device) % HELD_OUT == 0
        start += len(x)
        for sums, rows in ((fit, ~chosen), (held, chosen), (everything, chosen | True)):
            if rows.any():
                sums.add(x[rows].flatten(0, -2), weights[rows].flatten(), t[rows].flatten(0, -2))
    anchor = linear.weight.double().cpu()

    def error(ridge: float) -> float:
        weight, bias = _solve(fit, anchor, ridge)
        x_mean, t_mean = held.means
        offset = t_mean - weight @ x_mean - bias
        residual = (
            weight @ held.covariance @ weight.T - 2 * weight @ held.cross_covariance + torch.outer(offset, offset)
        )
        return float((moments.gradient * residual).sum())

    weight, bias = _solve(everything, anchor, min(RIDGES, key=error))
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


def _solve(sums: RunningMoments, anchor: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """argmin over W, b of E‖W x + b − t‖² + λ‖W − anchor‖², with λ = ``ridge`` × the mean diagonal of cov(x)."""
    covariance = sums.covariance
    strength = ridge * covariance.diagonal().mean()
    regularised = covariance + strength * torch.eye(len(covariance)).double()
    weight = torch.linalg.solve(regularised, sums.cross_covariance + strength * anchor.T).T
    x_mean, t_mean = sums.means
    return weight, t_mean - weight @ x_mean


def _block_inputs(model: nn.Module, data: Batches) -> Iterator[Tensor]:
    """The residual stream before the first block."""
    device = next(model.parameters()).device
    first = model.get_submodule("blocks.0")
    for images, _ in data:
        yield _input_of(first, model, images.to(device)).cpu()


def _after_attention(block: Block, x: Tensor) -> Tensor:
    y: Tensor = x + block.ls1(block.attn(block.norm1(x)))
    return y


def _after_feed_forward(block: Block, y: Tensor) -> Tensor:
    z: Tensor = y + block.ls2(block.mlp(block.norm2(y)))
    return z


def _writer(module: nn.Module) -> nn.Linear:
    """The map that a possibly factorised layer ends in."""
    last = module[-1] if isinstance(module, nn.Sequential) else module
    assert isinstance(last, nn.Linear)
    return last


def _scale(layer_scale: nn.Module) -> Tensor | float:
    """γ, with 1 for channels that it shuts off: nothing that is written there arrives, and any finite target does."""
    gamma = getattr(layer_scale, "gamma", None)
    return 1.0 if gamma is None else torch.where(gamma == 0, 1.0, gamma)


class _SeenError(Exception):
    """The input looked for has come by; the rest of the forward pass is not wanted."""


def _input_of(module: nn.Module, root: nn.Module, x: Tensor) -> Tensor:
    """What ``module`` gets when ``root``, which holds it, is called with ``x``."""
    seen: list[Tensor] = []

    def stop(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])
        raise _SeenError

    handle = module.register_forward_pre_hook(stop)
    try:
        root(x)
    except _SeenError:
        pass
    finally:
        handle.remove()
    return seen[0]
