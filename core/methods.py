"""The methods, each a function of the model, its shape, the calibration data and the recipe."""

from torch import nn

from core.allocate import allocate, target_of
from core.baselines import baseline
from core.data import Prepared
from core.fisher import shrink, survey
from core.hybrid import hybrid
from core.losparse import losparse
from core.progress import OnProgress
from core.recipe import (
    ActivationSvdRecipe,
    AnyRecipe,
    FisherRecipe,
    HybridRecipe,
    LoSparseRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    SvdRecipe,
    VtpRecipe,
)
from core.shapes import ModelShape
from core.vtp import vtp
from vitpress.plan import Plan

Compression = tuple[nn.Module, Plan]


def run(recipe: AnyRecipe, model: nn.Module, shape: ModelShape, data: Prepared, on_progress: OnProgress) -> Compression:
    """The smaller model and its plan, by the method that ``recipe`` names. ``model`` is left as it is."""
    match recipe:
        case FisherRecipe():
            return fisher(model, shape, data, recipe, on_progress)
        case VtpRecipe():
            return vtp(model, shape, data, recipe, on_progress)
        case HybridRecipe():
            return hybrid(model, shape, data, recipe, on_progress)
        case LoSparseRecipe():
            return losparse(model, shape, data, recipe, on_progress)
        case SvdRecipe() | ActivationSvdRecipe() | MagnitudeRecipe() | SvdMagnitudeRecipe():
            return baseline(model, shape, data, recipe, on_progress)


def fisher(
    model: nn.Module, shape: ModelShape, data: Prepared, recipe: FisherRecipe, on_progress: OnProgress
) -> Compression:
    """Calibrate, price every size of every layer, choose, rebuild, re-fit."""
    surveyed = survey(model, shape, data, recipe.seed, on_progress)
    plan = allocate(shape, surveyed.curves(target_of(shape, recipe).gain), recipe)
    return shrink(surveyed, plan, on_progress, refit=recipe.refit), plan
