"""What a recipe has come to: a smaller model, and how it was found."""

from dataclasses import dataclass

from torch import nn

from core.evidence import Spectrum
from core.recipe import AnyRecipe
from core.report import LayerCheck, Search
from vitpress.plan import Plan


@dataclass(frozen=True)
class Reached:
    """A smaller model by the ``recipe`` for it alone.

    ``search``: how, where its goal took several tries. ``self_check``: of a method that predicts losses.
    ``spectra``: what it was cut from, by a method that ranks components.
    """

    recipe: AnyRecipe
    model: nn.Module
    plan: Plan
    search: Search | None = None
    self_check: tuple[LayerCheck, ...] = ()
    spectra: tuple[Spectrum, ...] | None = None
