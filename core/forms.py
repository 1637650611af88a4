"""Which forms a method may give a layer. Torch-free."""

from dataclasses import dataclass

from core.recipe import (
    ActivationSvdRecipe,
    AnyRecipe,
    FisherRecipe,
    HybridRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    SvdRecipe,
)


@dataclass(frozen=True)
class Forms:
    """``heads``: fewer heads, and fewer dimensions of each; ``width``: fewer hidden units; the others: low rank."""

    heads: bool = False
    width: bool = False
    attention_rank: bool = False
    feed_forward_rank: bool = False
    linear_rank: bool = False


EVERY_FORM = Forms(heads=True, width=True, attention_rank=True, feed_forward_rank=True, linear_rank=True)


def forms_of(recipe: AnyRecipe) -> Forms:
    """Of a method that chooses among the sizes of ``core.shapes``; one that plans otherwise has none."""
    match recipe:
        case FisherRecipe():
            return EVERY_FORM
        case SvdRecipe() | ActivationSvdRecipe():
            return Forms(attention_rank=True, feed_forward_rank=True, linear_rank=True)
        case MagnitudeRecipe():
            return Forms(heads=True, width=True)
        case SvdMagnitudeRecipe():
            return Forms(width=True, attention_rank=True, linear_rank=True)
        case HybridRecipe():
            return Forms(attention_rank=True, linear_rank=True)
        case _:
            return Forms()
