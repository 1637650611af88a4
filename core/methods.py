"""The methods of the literature, each a function of the model, its shape, the calibration data and the recipe."""

from torch import nn

from core.baselines import baseline
from core.checkpoints import Checkpoints
from core.data import Prepared
from core.evidence import Spectrum
from core.hybrid import hybrid
from core.losparse import losparse
from core.progress import OnProgress
from core.recipe import (
    ActivationSvdRecipe,
    HybridRecipe,
    LiteratureRecipe,
    LoSparseRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    SvdRecipe,
    VtpRecipe,
)
from core.shapes import ModelShape
from core.vtp import vtp
from vitpress.plan import Plan

Compression = tuple[nn.Module, Plan, tuple[Spectrum, ...] | None]


def run(
    recipe: LiteratureRecipe,
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> Compression:
    """The smaller model, its plan and the spectra it was cut from, by the method that ``recipe`` names.

    ``model`` is left as it is. Methods that train gates or rows have no spectra; they alone leave ``checkpoints``.
    """
    match recipe:
        case VtpRecipe():
            return *vtp(model, shape, data, recipe, on_progress, checkpoints), None
        case HybridRecipe():
            return *hybrid(model, shape, data, recipe, on_progress, checkpoints), None
        case LoSparseRecipe():
            return *losparse(model, shape, data, recipe, on_progress, checkpoints), None
        case SvdRecipe() | ActivationSvdRecipe() | MagnitudeRecipe() | SvdMagnitudeRecipe():
            return baseline(model, shape, data, recipe, on_progress)
