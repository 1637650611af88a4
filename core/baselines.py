"""The cheap methods to compare with: SVD plain or in the metric of the inputs, and magnitude. None is re-fitted.

- plain SVD of a map: what is largest stays (Eckart & Young 1936).
- activation-aware SVD: ½ ‖ΔW C^½‖² is what changes in the outputs, C the covariance of the map's inputs over the
  calibration images, every token alike; the bias makes up for their mean. So do ASVD (Yuan et al. 2023, arXiv
  2312.05821), with a diagonal C, and SVD-LLM (Wang et al. 2024, arXiv 2403.07378), whose C is not centred and which
  has no bias to correct. Nothing of the loss's gradient is known to it.
- magnitude: a hidden unit counts by the norm of its row of ``fc1`` (in a gated block of both its rows) times that of
  its column of ``fc2``, a value dimension likewise, a dimension of queries and keys by the norms of its two rows, and
  a head by the sum over its value dimensions. Nothing takes over the work of what goes.

The data-free ones have the sizes of their dry run, about the same fraction of every layer. ``activation-svd`` chooses
them by one price, its own: the share of a map's output variance that is lost, times its weights. On held-out
calibration images of the sample models this was closer to the original than equal fractions at most ratios.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.allocate import allocate
from core.candidates import Candidate, Map, Weights
from core.curves import AttentionPrices, FeedForwardPrices, HeadPrices, LinearPrices, Prices, curve
from core.data import Prepared
from core.errors import NumericalError
from core.evidence import Spectrum, Unit
from core.families import canonical_copy
from core.fisher import maps_of
from core.forms import Forms, forms_of
from core.lowrank import Affine, LowRank, affine
from core.prior import prior
from core.progress import OnProgress, Progress, Stage
from core.rebuild import rebuild
from core.recipe import ActivationSvdRecipe, AnyRecipe, MagnitudeRecipe, SvdMagnitudeRecipe, SvdRecipe
from core.running import RunningMoments
from core.shapes import (
    AttentionShape,
    AttentionSize,
    FeedForwardShape,
    FeedForwardSize,
    LayerShape,
    LinearSize,
    ModelShape,
    Size,
)
from core.spectra import Components, spectra
from core.steps import ranks
from vitpress.plan import Plan

BaselineRecipe = SvdRecipe | ActivationSvdRecipe | MagnitudeRecipe | SvdMagnitudeRecipe


def baseline(
    model: nn.Module, shape: ModelShape, data: Prepared, recipe: BaselineRecipe, on_progress: OnProgress
) -> tuple[nn.Module, Plan, tuple[Spectrum, ...] | None]:
    """The smaller model, its plan, and the spectra of what may be factorised; None: nothing may.

    ``model`` is left as it is. Raises ``NumericalError``.
    """
    ours = canonical_copy(model)
    moments: Mapping[str, RunningMoments] = {}
    if isinstance(recipe, ActivationSvdRecipe):
        moments = input_moments(ours, [path for layer in shape.layers for path in maps_of(layer)], data, on_progress)
    on_progress(Progress(Stage.COMPRESS, 0.0))
    candidates = {layer.path: Plain(ours, layer, forms_of(recipe), moments) for layer in shape.layers}
    plan = allocate(shape, [curve(each, candidates[each.path].prices) for each in shape.layers], recipe, measured=False)
    components = {path: each.components for path, each in candidates.items()}
    unit: Unit = "output_variance" if moments else "weight_energy"
    return rebuild(model, shape, plan, candidates), plan, spectra(shape.layers, plan, components, {}, unit) or None


def plain_svd(model: nn.Module, shape: ModelShape, recipe: AnyRecipe) -> dict[str, Candidate]:
    """By path: the layers of ``model`` at the sizes that ``recipe`` allows, without data."""
    ours = canonical_copy(model)
    return {layer.path: Plain(ours, layer, forms_of(recipe)) for layer in shape.layers}


class Plain:
    """A layer by plain rules: dimensions and units by magnitude, and low rank, in the metric of the inputs if known."""

    def __init__(
        self, model: nn.Module, layer: LayerShape, forms: Forms, moments: Mapping[str, RunningMoments] | None = None
    ) -> None:
        """``model``: a canonical one. ``moments``: of the inputs, by the map's path."""
        self._layer, self._forms, self._moments = layer, forms, moments or {}
        self._components: dict[str, list[float]] = {}
        self._maps = {
            path.removeprefix(layer.path).lstrip("."): affine(model.get_submodule(path)) for path in maps_of(layer)
        }

    @property
    def prices(self) -> Prices:
        """No losses of the model's: by them sizes are compared with those of other layers, and that is all."""
        if not self._moments:
            return prior(self._layer, self._forms)
        match self._layer:
            case AttentionShape() as layer:
                whole = {layer.head_dim: 0.0}
                heads = {layer.heads: HeadPrices(qk=whole, v=whole)}
                return AttentionPrices(heads, qkv=self._lost("qkv"), proj=self._lost("proj"))
            case FeedForwardShape() as layer:
                return FeedForwardPrices({layer.hidden_features: 0.0}, fc1=self._lost("fc1"), fc2=self._lost("fc2"))
            case _:
                return LinearPrices(self._lost(""))

    @property
    def components(self) -> Components:
        """Of the maps that may be factorised."""
        allowed = {
            "qkv": self._forms.attention_rank,
            "proj": self._forms.attention_rank,
            "fc1": self._forms.feed_forward_rank,
            "fc2": self._forms.feed_forward_rank,
            "": self._forms.linear_rank,
        }
        for name, each in self._maps.items():
            if allowed[name] and name not in self._components:
                self._components[name] = self._low_rank(name, each).components.tolist()
        return self._components

    def _lost(self, name: str) -> dict[int, float]:
        """By rank: the share of the variance of a map's outputs that goes with it, times the map's weights."""
        weight, low_rank = self._maps[name].weight, self._low_rank(name, self._maps[name])
        outputs, inputs = weight.shape
        self._components[name] = low_rank.components.tolist()
        covariance = self._moments[self._path(name)].covariance
        whole = 0.5 * float((weight @ covariance * weight).sum()) or 1.0
        return {0: 0.0} | {rank: inputs * outputs * low_rank.loss(rank) / whole for rank in ranks(inputs, outputs)}

    def _path(self, name: str) -> str:
        return f"{self._layer.path}.{name}".rstrip(".")

    def at(self, size: Size) -> Weights:
        match self._layer, size:
            case AttentionShape() as layer, AttentionSize():
                heads, dims, values = self._dimensions(layer, size)
                qkv, proj = self._maps["qkv"], self._maps["proj"]
                width = layer.heads * layer.head_dim
                rows = torch.cat([dims, width + dims, 2 * width + values])
                narrow = {"qkv": _rows(qkv, rows), "proj": Affine(proj.weight[:, values], proj.bias)}
                chosen = heads if size.heads < layer.heads else None
                return Weights(self._factored(narrow, qkv=size.qkv_rank, proj=size.proj_rank), heads=chosen)
            case FeedForwardShape() as layer, FeedForwardSize():
                fc1, fc2 = self._maps["fc1"], self._maps["fc2"]
                units = _largest(_unit_magnitudes(fc1, fc2), size.width)
                rows = torch.cat([units + half * layer.hidden_features for half in range(layer.halves)])
                narrow = {"fc1": _rows(fc1, rows), "fc2": Affine(fc2.weight[:, units], fc2.bias)}
                return Weights(self._factored(narrow, fc1=size.fc1_rank, fc2=size.fc2_rank))
            case _, LinearSize():
                return Weights(self._factored(self._maps, **{"": size.rank}))
        raise TypeError(f"{size} is no size of a {self._layer.kind}")

    def _factored(self, maps: Mapping[str, Affine], **kept: int) -> dict[str, Map]:
        return {name: self._low_rank(name, each).at(kept[name]) if kept[name] else each for name, each in maps.items()}

    def _low_rank(self, name: str, linear: Affine) -> LowRank:
        known = self._moments.get(self._path(name))
        if known is None:
            return LowRank(linear)
        # No method that knows its inputs has narrower forms, so that these are the inputs of ``linear``.
        return LowRank(linear, known.means[0], known.covariance)

    def _dimensions(self, layer: AttentionShape, size: AttentionSize) -> tuple[Tensor, Tensor, Tensor]:
        """Heads, and the places of their queries' (or keys') and values' dimensions among those of all heads."""
        norms = self._maps["qkv"].weight.norm(dim=1).view(3, layer.heads, layer.head_dim)
        by_value = norms[2] * self._maps["proj"].weight.norm(dim=0).view(layer.heads, layer.head_dim)
        heads = _largest(by_value.sum(1), size.heads)

        def of(magnitudes: Float[Tensor, "heads dim"], count: int) -> Tensor:
            return torch.cat([head * layer.head_dim + _largest(magnitudes[head], count) for head in heads.tolist()])

        return heads, of(norms[0] * norms[1], size.qk_dim), of(by_value, size.v_dim)


def _unit_magnitudes(fc1: Affine, fc2: Affine) -> Float[Tensor, " hidden"]:
    columns = fc2.weight.norm(dim=0)
    rows = fc1.weight.view(-1, len(columns), fc1.weight.shape[1])
    magnitudes: Tensor = rows.square().sum((0, 2)).sqrt() * columns
    return magnitudes


def _largest(magnitudes: Float[Tensor, " all"], count: int) -> Tensor:
    """The places of the ``count`` largest, ascending."""
    return magnitudes.argsort(descending=True, stable=True)[:count].sort().values


def _rows(linear: Affine, rows: Tensor) -> Affine:
    return Affine(linear.weight[rows], linear.bias[rows])


@torch.inference_mode()
def input_moments(
    model: nn.Module, paths: Sequence[str], data: Prepared, on_progress: OnProgress
) -> dict[str, RunningMoments]:
    """Mean and covariance of what the linear maps at ``paths`` get, over all tokens of the calibration images.

    Raises ``NumericalError`` where they are not finite.
    """
    device = next(model.parameters()).device
    found = {path: RunningMoments() for path in paths}

    def listen(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].flatten(0, -2)
            found[path].add(x, x.new_ones(len(x)))

        return hook

    handles = [model.get_submodule(path).register_forward_pre_hook(listen(path)) for path in paths]
    done = 0
    try:
        for images, _ in data.calibration:
            model(images.to(device))
            done += len(images)
            on_progress(Progress(Stage.CALIBRATE, done / data.calibration_images))
    finally:
        for handle in handles:
            handle.remove()
    for path, moments in found.items():
        if not moments.covariance.isfinite().all():
            raise NumericalError(f"{path}: activations are not finite on the calibration images")
    return found
