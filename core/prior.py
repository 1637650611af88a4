"""The prices of a layer that nothing is known of: for a dry run, which has shapes and no data. Torch-free."""

from collections.abc import Iterable
from math import exp

from core.curves import AttentionPrices, FeedForwardPrices, HeadPrices, LinearPrices, Losses, Prices
from core.forms import EVERY_FORM, Forms
from core.shapes import AttentionShape, FeedForwardShape, LayerShape, LinearShape
from core.steps import head_counts, multiples, ranks

PRIOR_DECAY = 5.0  # of the singular values' energy over the full rank


def prior(shape: LayerShape, forms: Forms = EVERY_FORM) -> Prices:
    """The prices of a layer that nothing is known of: loss decays with the fraction kept as spectra do, exponentially.

    Its slope depends on that fraction alone, so that one price means about the same fraction everywhere. ``forms``:
    those that the method has; others have no price.
    """

    def losses(sizes: Iterable[int], full: int, parameters: float) -> Losses:
        return {size: parameters * (exp(-PRIOR_DECAY * size / full) - exp(-PRIOR_DECAY)) for size in sizes}

    def factored(allowed: bool, inputs: int, outputs: int) -> Losses:
        lower = losses(ranks(inputs, outputs), min(inputs, outputs), inputs * outputs) if allowed else {}
        return {0: 0.0} | dict(lower)

    match shape:
        case LinearShape():
            return LinearPrices(factored(forms.linear_rank, shape.in_features, shape.out_features))
        case FeedForwardShape():
            full, fc1 = shape.hidden_features, shape.halves * shape.hidden_features
            widths = {full, *multiples(full)} if shape.free_units and forms.width else {full}
            return FeedForwardPrices(
                width=losses(sorted(widths), full, shape.parameters),
                fc1=factored(forms.feed_forward_rank, shape.in_features, fc1),
                fc2=factored(forms.feed_forward_rank, full, shape.out_features),
            )
        case AttentionShape():
            full, width = shape.head_dim, shape.heads * shape.head_dim
            dims = sorted({full, *multiples(full)})
            half = shape.parameters / 2
            free_queries, free_values = shape.free_queries and forms.heads, shape.free_values and forms.heads
            counts = head_counts(shape.heads) if free_values else [shape.heads]
            gone = losses(counts, shape.heads, shape.parameters)
            return AttentionPrices(
                heads={
                    count: HeadPrices(
                        qk=losses(dims if free_queries else [full], full, half * count / shape.heads),
                        v={
                            dim: gone[count] + loss
                            for dim, loss in losses(
                                dims if free_values else [full], full, half * count / shape.heads
                            ).items()
                        },
                    )
                    for count in counts
                },
                qkv=factored(forms.attention_rank, shape.in_features, 3 * width),
                proj=factored(forms.attention_rank, width, shape.out_features),
            )
