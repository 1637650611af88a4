"""What a layer's size really costs: the KL divergence that it alone brings about, beside the predicted loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.data import Batches
from core.report import LayerCheck
from vitpress.plan import Dense, Plan


@torch.inference_mode()
def probe(
    original: nn.Module, compressed: nn.Module, plan: Plan, data: Sequence[tuple[Tensor, Tensor]]
) -> tuple[LayerCheck, ...]:
    """For each layer that ``plan`` compresses: mean KL(original ‖ original with that layer compressed), in nats.

    ``original`` is in canonical form, and as it was when this returns.
    """
    expected = _log_probabilities(original, data)
    found = []
    for layer in plan.layers:
        if isinstance(layer, Dense):
            continue
        whole = original.get_submodule(layer.path)
        original.set_submodule(layer.path, compressed.get_submodule(layer.path))
        try:
            got = _log_probabilities(original, data)
        finally:
            original.set_submodule(layer.path, whole)
        divergence = float(F.kl_div(got, expected, reduction="batchmean", log_target=True))
        found.append(LayerCheck(path=layer.path, predicted_loss=layer.predicted_loss, measured_kl=divergence))
    return tuple(found)


def _log_probabilities(model: nn.Module, data: Batches) -> Float[Tensor, "images classes"]:
    device = next(model.parameters()).device
    return torch.cat([model(images.to(device)).double().log_softmax(-1) for images, _ in data])
