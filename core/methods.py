"""The methods, each a function of the model, its shape, the calibration data and the recipe.

``fisher`` is ours: training-free, second-order, one price for everything. ``svd_magnitude`` is the data-free baseline.
Each step is a module of its own; here they are strung together.
"""

from timm.layers import Mlp
from torch import nn

from core.allocate import allocate, curve, dry_run, sizes
from core.calibrate import Moments, calibrate
from core.data import Prepared
from core.lowrank import LowRankCandidate
from core.progress import OnProgress, Progress, Stage
from core.prune import PruneCandidate
from core.rebuild import rebuild
from core.recipe import FisherRecipe, SvdMagnitudeRecipe
from core.refit import can_refit, refit_
from core.shapes import LayerShape, LinearShape, ModelShape
from vitpress.plan import Plan

Compression = tuple[nn.Module, Plan]


def run(
    recipe: FisherRecipe | SvdMagnitudeRecipe,
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    on_progress: OnProgress,
) -> Compression:
    """The smaller model and its plan, by the method that ``recipe`` names. ``model`` is left as it is."""
    match recipe:
        case FisherRecipe():
            return fisher(model, shape, data, recipe, on_progress)
        case SvdMagnitudeRecipe():
            return svd_magnitude(model, shape, recipe, on_progress)


def fisher(
    model: nn.Module, shape: ModelShape, data: Prepared, recipe: FisherRecipe, on_progress: OnProgress
) -> Compression:
    """Calibrate, price every rank and width, choose, rebuild, re-fit."""
    total = data.calibration_images
    linears = [layer.path if isinstance(layer, LinearShape) else f"{layer.path}.fc2" for layer in shape.layers]
    moments = calibrate(
        model,
        linears,
        data.calibration,
        seed=recipe.seed,
        on_images=lambda done: on_progress(Progress(Stage.CALIBRATE, done / total)),
    )

    candidates, curves = {}, []
    for index, (layer, linear) in enumerate(zip(shape.layers, linears, strict=True)):
        candidate = candidates[layer.path] = _candidate(model, layer, moments[linear])
        curves.append(curve(layer, ((size, candidate.loss(size)) for size in sizes(layer, shape.parameters))))
        on_progress(Progress(Stage.COMPRESS, 0.5 * (index + 1) / len(linears)))

    plan = allocate(shape, curves, recipe)
    smaller = rebuild(model, plan, candidates)
    if recipe.refit and can_refit(model):
        refit_(
            smaller,
            model,
            data.calibration,
            moments,
            on_block=lambda fraction: on_progress(Progress(Stage.COMPRESS, 0.5 + 0.5 * fraction)),
        )
    return smaller, plan


def svd_magnitude(
    model: nn.Module, shape: ModelShape, recipe: SvdMagnitudeRecipe, on_progress: OnProgress
) -> Compression:
    """The sizes that the shapes alone suggest, the largest singular values, the largest hidden units."""
    on_progress(Progress(Stage.COMPRESS, 0.0))
    plan = dry_run(shape, recipe)
    return rebuild(model, plan, {layer.path: _candidate(model, layer, None) for layer in shape.layers}), plan


def _candidate(model: nn.Module, layer: LayerShape, moments: Moments | None) -> LowRankCandidate | PruneCandidate:
    module = model.get_submodule(layer.path)
    if isinstance(module, nn.Linear):
        return LowRankCandidate(module, moments)
    assert isinstance(module, Mlp)
    return PruneCandidate(module, moments)
