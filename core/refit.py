"""Sequential re-fit: every map that the compressed stream flows through learns to bring it back to the original's.

Block by block, with x the residual stream before a block, y after its attention and z after its feed-forward part,
each map is solved for in closed form from the *compressed* stream's inputs to what makes the *original* stream:

    qkv, fc1  →  what they would say of the original's stream
    proj      →  (y_original − x_compressed) / γ₁
    fc2       →  (z_original − y_compressed) / γ₂

so that no error travels further than it must. Each is a ridge regression anchored at the weights there are,
over the tokens of all calibration images, weighted by how much the loss minds each token
(``Moments.token_weights``). Its ridge is the one of ``RIDGES`` that predicts a held-out fifth of those images
best, errors taken in the metric G. What a map gives up for its rank is then chosen anew, from what was solved
and in the compressed stream (``core.lowrank``). Last comes the classifier, held to the original's answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.calibrate import Moments
from core.candidates import Reader
from core.lowrank import Affine, LowRank, affine, damped
from core.rebuild import set_
from core.running import RunningMoments
from core.stream import Stream, Walk, after_attention, after_feed_forward, classifier, features, input_of, scale
from vitpress.layers import weight_of

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # times each diagonal entry of the inputs' covariance
# The classifier sees one row an image: a large ridge leaves it as it was.
CLASSIFIER_RIDGES = (*RIDGES, 10.0, 30.0, 100.0, 1000.0)
HELD_OUT = 5  # one image in so many chooses the ridge
RESOLUTION = 1e-6  # of an input's mean: what varies by less is a constant, rounded

Examples = Iterable[tuple[Tensor, Tensor]]  # inputs and targets, batch by batch


@torch.no_grad()
def refit_(
    compressed: nn.Module,
    original: nn.Module,
    walk: Walk,
    moments: Mapping[str, Moments],
    reader_of: Callable[[str], Reader | None],
    on_block: Callable[[float], None],
) -> None:
    """Re-fit ``compressed`` in place, block by block, along the ``walk`` of ``original``.

    ``moments`` and ``reader_of``: by the map's path; a map without a reader stands for itself. ``on_block`` hears the
    fraction of the blocks done.
    """
    x_original = x_compressed = walk.start
    for index, (path, extras) in enumerate(zip(walk.paths, walk.extras, strict=True)):
        block = _Block(path, original, compressed, moments, reader_of, extras)
        x_original, x_compressed = block.refit_(x_original, x_compressed)
        on_block((index + 1) / len(walk.paths))
    if walk.classified:
        _fit_classifier_(compressed, original, x_compressed, x_original)


def _fit_classifier_(compressed: nn.Module, original: nn.Module, stream: Stream, original_stream: Stream) -> None:
    """Images weigh as tokens do elsewhere, by their share of the Fisher information of the logits."""
    new, old = classifier(compressed), classifier(original)
    device = next(original.parameters()).device
    answers = [old(features(original, z.to(device))) for z in original_stream]
    p = torch.cat(answers).double().softmax(-1)
    information = 1 - p.square().sum(1)
    fit_(
        new,
        ((features(compressed, z.to(device)), wanted) for z, wanted in zip(stream, answers, strict=True)),
        (information + information.mean())[:, None].float(),
        p.mean(0).diag() - p.T @ p / len(p),
        CLASSIFIER_RIDGES,
    )


class _Block:
    """A block of both models."""

    def __init__(
        self,
        path: str,
        original: nn.Module,
        compressed: nn.Module,
        moments: Mapping[str, Moments],
        reader_of: Callable[[str], Reader | None],
        extras: Mapping[str, Any],
    ) -> None:
        self._path, self._moments, self._reader_of, self._extras = path, moments, reader_of, extras
        self._old, self._new = original.get_submodule(path), compressed.get_submodule(path)
        self._device = next(original.parameters()).device

    def refit_(self, x_original: Stream, x_compressed: Stream) -> tuple[Stream, Stream]:
        """Both streams before the block in, both after it out."""
        old, new, extras = self._old, self._new, self._extras
        self._fit_reader_("attn.qkv", "norm1", x_original, x_compressed)
        y_original = [after_attention(old, x, extras).cpu() for x in self._here(x_original)]
        if "attn.proj" in self:
            proj = new.get_submodule("attn.proj")
            norm, attn = new.get_submodule("norm1"), new.get_submodule("attn")
            self._fit_(
                "attn.proj",
                (
                    (input_of(proj, attn, norm(x), **extras), (y - x) / _nonzero(scale(new, 1)))
                    for y, x in self._both(y_original, x_compressed)
                ),
            )
        y_compressed = [after_attention(new, x, extras).cpu() for x in self._here(x_compressed)]

        self._fit_reader_("mlp.fc1", "norm2", y_original, y_compressed)
        z_original = [after_feed_forward(old, y).cpu() for y in self._here(y_original)]
        if "mlp.fc2" in self:
            fc2 = new.get_submodule("mlp.fc2")
            norm, mlp = new.get_submodule("norm2"), new.get_submodule("mlp")
            self._fit_(
                "mlp.fc2",
                (
                    (input_of(fc2, mlp, norm(y)), (z - y) / _nonzero(scale(new, 2)))
                    for z, y in self._both(z_original, y_compressed)
                ),
            )
        return z_original, [after_feed_forward(new, y).cpu() for y in self._here(y_compressed)]

    def __contains__(self, name: str) -> bool:
        return f"{self._path}.{name}" in self._moments

    def _here(self, stream: Stream) -> Iterator[Tensor]:
        return (each.to(self._device) for each in stream)

    def _both(self, one: Stream, other: Stream) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self._here(one), self._here(other), strict=True)

    def _fit_reader_(self, name: str, norm_name: str, original: Stream, compressed: Stream) -> None:
        if name not in self:
            return
        module = self._new.get_submodule(name)
        reader = self._reader_of(f"{self._path}.{name}")
        dense = reader.dense if reader else affine(module)
        weight, bias = dense.weight.float(), dense.bias.float()
        old_norm, new_norm = self._old.get_submodule(norm_name), self._new.get_submodule(norm_name)
        self._fit_(
            name,
            (
                (new_norm(x), nn.functional.linear(old_norm(x_original), weight, bias))
                for x_original, x in self._both(original, compressed)
            ),
            reader.gradient if reader else None,
        )

    def _fit_(self, name: str, examples: Examples, gradient: Tensor | None = None) -> None:
        moments = self._moments[f"{self._path}.{name}"]
        metric = moments.gradient.to(self._device).double() if gradient is None else gradient
        fit_(self._new.get_submodule(name), examples, moments.token_weights, metric)


def fit_(
    module: nn.Module,
    examples: Examples,
    token_weights: Float[Tensor, "rows tokens"],
    metric: Float[Tensor, "outputs outputs"],
    ridges: Sequence[float] = RIDGES,
) -> None:
    """Solve for a linear map in place; of a factorised one, take what is best of that rank in the ``metric``.

    A map without a bias, or seen on one image alone, is left as it is.
    """
    if not _has_bias(module) or len(token_weights) < 2:
        return
    fit, held = RunningMoments(), RunningMoments()
    start = 0
    for x, t in examples:
        weights = token_weights[start : start + len(x)].to(x.device)
        chosen = torch.arange(start, start + len(x), device=x.device) % HELD_OUT == 0
        start += len(x)
        for sums, rows in ((fit, ~chosen), (held, chosen)):
            if rows.any():
                sums.add(x[rows].flatten(0, -2), weights[rows].flatten(), t[rows].flatten(0, -2))
    anchor = weight_of(module).detach().double()

    def error(ridge: float) -> float:
        solved = _solve(fit, anchor, ridge)
        weight = solved.weight
        x_mean, t_mean = held.means
        offset = t_mean - weight @ x_mean - solved.bias
        residual = (
            weight @ held.covariance @ weight.T - 2 * weight @ held.cross_covariance + torch.outer(offset, offset)
        )
        return float((metric * residual).sum())

    both = fit.merged(held)
    solved = _solve(both, anchor, min(ridges, key=error))
    if isinstance(module, nn.Sequential):
        rank = module.get_submodule("0").get_parameter("weight").shape[0]
        set_(module, LowRank(solved, both.means[0], both.covariance, metric).at(rank))
    else:
        set_(module, solved)


def _solve(sums: RunningMoments, anchor: Tensor, ridge: float) -> Affine:
    """argmin over W, b of E‖W x + b − t‖² + tr((W − anchor) Λ (W − anchor)ᵀ), with Λ = ``ridge`` × diag cov(x).

    A constant input keeps its weights: what rounding has left of its covariances would choose any.
    """
    covariance, (x_mean, t_mean) = sums.covariance, sums.means
    strength = (damped(covariance, ridge) - covariance).diagonal()
    strength = strength.maximum(ridge * (RESOLUTION * x_mean).square())
    weight = torch.linalg.solve(covariance + strength.diag(), sums.cross_covariance + strength[:, None] * anchor.T).T
    return Affine(weight, t_mean - weight @ x_mean)


def _has_bias(module: nn.Module) -> bool:
    """Of a linear map; one that is two always has."""
    return isinstance(module, nn.Sequential) or getattr(module, "bias", None) is not None


def _nonzero(gamma: Tensor | float) -> Tensor | float:
    """γ, with 1 for channels that it shuts off: nothing that is written there arrives, and any finite target does."""
    return torch.where(gamma == 0, 1.0, gamma) if isinstance(gamma, Tensor) else gamma
