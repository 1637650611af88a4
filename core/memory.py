"""How much of its device's memory a job takes at its peak, from shapes alone: what admits it to a worker. Torch-free.

In float32, of a model with P parameters, over its compressible layers:

    runtime         RUNTIME_BYTES: the device's context and libraries, before any job
    weights         4 P for each of COPIES: as loaded, the original, in our form, and what becomes of it
    training        4 P for each of TRAINED, where the method or a fine-tuning trains: gradients, AdamW's two moments,
                    the moving average
    statistics      for each linear map with ``in`` inputs and ``out`` outputs, float64: two sums of in² and two of out²
                    (fisher), one of in² (activation-svd)
    decomposition   DECOMPOSED matrices in float64 of the widest map's size
    activations     BETWEEN times 4 bytes for each map's inputs and outputs, at every token of as many images as go at
                    once: ``core.data.BATCH`` in calibration, but no more than ``core.calibrate.ACTIVATION_BYTES`` of
                    them; ``batch_size`` in training. Where nothing flows back, those of the largest layer alone.

Calibration images and the residual streams of the re-fit stay in the host's memory, and are not in it.
"""

from collections.abc import Iterator

from core.recipe import ActivationSvdRecipe, AnyRecipe, FisherRecipe, HybridRecipe, LoSparseRecipe, VtpRecipe
from core.shapes import AttentionShape, FeedForwardShape, LayerShape, ModelShape

RUNTIME_BYTES = 2**29
COPIES = 4
TRAINED = 4
DECOMPOSED = 8
BETWEEN = 2
BATCH = 64  # core.data's
ACTIVATION_BYTES = 2**31  # core.calibrate's
FLOAT, DOUBLE = 4, 8


def peak_bytes(shape: ModelShape, recipe: AnyRecipe) -> int:
    """Estimated. Within a factor of two of what was measured: see tests/core/test_core_memory.py."""
    return RUNTIME_BYTES + growth_bytes(shape, recipe)


def growth_bytes(shape: ModelShape, recipe: AnyRecipe) -> int:
    """``peak_bytes`` beyond the runtime and the model as it was loaded: what a process grows by at its work."""
    steps = [_finding(shape, recipe)]
    if recipe.finetune:
        steps.append(_training(shape, recipe.finetune.batch_size))
    return COPIES * FLOAT * shape.parameters + max(steps)


def _finding(shape: ModelShape, recipe: AnyRecipe) -> int:
    """Beyond the weights, while it is found what goes."""
    maps = [each for layer in shape.layers for each in _maps(layer)]
    widest = max((max(inputs, outputs) for inputs, outputs in maps), default=0)
    decomposition = DECOMPOSED * DOUBLE * widest**2
    match recipe:
        case FisherRecipe():
            statistics = sum(2 * DOUBLE * (inputs**2 + outputs**2) for inputs, outputs in maps)
            between = _of_an_image(shape.layers)
            return statistics + max(decomposition, BETWEEN * min(BATCH * between, max(ACTIVATION_BYTES, between)))
        case ActivationSvdRecipe():
            statistics = sum(DOUBLE * inputs**2 for inputs, _ in maps)
            return statistics + max(decomposition, _forward(shape))
        case VtpRecipe() | HybridRecipe() | LoSparseRecipe():
            return _training(shape, recipe.batch_size)
        case _:
            return max(decomposition, _forward(shape))


def _training(shape: ModelShape, batch_size: int) -> int:
    return TRAINED * FLOAT * shape.parameters + BETWEEN * batch_size * _of_an_image(shape.layers)


def _forward(shape: ModelShape) -> int:
    return BETWEEN * BATCH * max((_of_an_image([layer]) for layer in shape.layers), default=0)


def _of_an_image(layers: tuple[LayerShape, ...] | list[LayerShape]) -> int:
    """Bytes of the inputs and outputs of all maps of ``layers``."""
    return sum(FLOAT * layer.tokens * (inputs + outputs) for layer in layers for inputs, outputs in _maps(layer))


def _maps(layer: LayerShape) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of its linear maps."""
    match layer:
        case AttentionShape():
            width = layer.heads * layer.head_dim
            yield layer.in_features, 3 * width
            yield width, layer.out_features
        case FeedForwardShape():
            yield layer.in_features, layer.halves * layer.hidden_features
            yield layer.hidden_features, layer.out_features
        case _:
            yield layer.in_features, layer.out_features
