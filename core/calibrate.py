"""Calibration: what each layer sees, and how much the loss minds a change of what it says.

For a linear map y = W x + b and the cross-entropy ℓ against labels sampled from the model's own softmax, one
forward and backward pass a batch gives g = ∂ℓ/∂y, and from it, over all tokens t of all images,

    G = E_image[Σ_t g gᵀ],   μ = Σ w x / Σ w,   C = Σ w (x − μ)(x − μ)ᵀ / Σ w,   w = ‖g‖² + mean ‖g‖².

½ tr(G ΔW C ΔWᵀ) then estimates the loss that a change ΔW adds to one image (the Fisher information is the Hessian's
Gauss-Newton part; Martens & Grosse 2015, arXiv 1503.05671, factorise it so). Their C weighs all tokens alike. Ours
weighs a token by how much its output matters: before a class-token pooling, most of the last block's do not at all.
The mean, which is of the batch, keeps a few tokens with large gradients from being all that is seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.data import Batches
from core.errors import NumericalError
from core.frozen import frozen_parameters
from core.running import RunningMoments


@dataclass(frozen=True)
class Moments:
    """Of one linear map over the calibration set, on the CPU. ``token_weights`` is w by image and token."""

    mean: Float[Tensor, " inputs"]
    covariance: Float[Tensor, "inputs inputs"]
    gradient: Float[Tensor, "outputs outputs"]
    token_weights: Float[Tensor, "images tokens"]


@dataclass
class _Layer:
    """What is kept of one layer while the batches go by, on the model's device."""

    inputs: RunningMoments = field(default_factory=RunningMoments)
    gradient: Tensor | float = 0.0
    token_weights: list[Tensor] = field(default_factory=list)

    def add(self, x: Float[Tensor, "images *tokens inputs"], g: Float[Tensor, "images *tokens outputs"]) -> None:
        rows = g.flatten(0, -2).float()
        weights = rows.square().sum(1)
        weights = weights + weights.mean().clamp_min(torch.finfo(torch.float32).tiny)  # never all zero
        self.token_weights.append(weights.view(len(x), -1).cpu())
        self.inputs.add(x.detach().flatten(0, -2), weights)
        self.gradient = self.gradient + (rows.T @ rows).double()

    def moments(self) -> Moments:
        token_weights = torch.cat(self.token_weights)
        return Moments(
            mean=self.inputs.means[0],
            covariance=self.inputs.covariance,
            gradient=(self.gradient / len(token_weights)).cpu(),  # type: ignore[union-attr]
            token_weights=token_weights,
        )


def calibrate(
    model: nn.Module,
    paths: Sequence[str],
    data: Batches,
    *,
    seed: int,
    on_images: Callable[[int], None],
) -> dict[str, Moments]:
    """The moments of the linear maps at ``paths``. ``on_images`` hears the number of images done.

    Raises ``NumericalError`` where the model's logits or gradients are not finite.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    layers = {path: _Layer() for path in paths}

    def listen(layer: _Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(lambda g: layer.add(args[0], g))

        return hook

    handles = [model.get_submodule(path).register_forward_hook(listen(layer)) for path, layer in layers.items()]
    done = 0
    try:
        with frozen_parameters(model):
            for images, _ in data:
                logits = model(images.to(device).requires_grad_())
                if not logits.isfinite().all():
                    raise NumericalError("the model's logits are not finite on the calibration images")
                F.cross_entropy(logits.float(), _sample_labels(logits, generator), reduction="sum").backward()
                done += len(images)
                on_images(done)
    finally:
        for handle in handles:
            handle.remove()
    found = {path: layer.moments() for path, layer in layers.items()}
    for path, moments in found.items():
        if not (moments.covariance.isfinite().all() and moments.gradient.isfinite().all()):
            raise NumericalError(f"{path}: activations or gradients are not finite on the calibration images")
    return found


def _sample_labels(logits: Float[Tensor, "images classes"], generator: torch.Generator) -> Tensor:
    """On the CPU, so that a seed gives the same labels on every device."""
    softmax = logits.detach().float().softmax(-1).cpu()
    return torch.multinomial(softmax, 1, generator=generator)[:, 0].to(logits.device)
