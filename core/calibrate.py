"""Calibration: what each layer sees, and how much the loss minds a change of what it says.

For a linear map y = W x + b, one forward and backward pass a batch gives g = ∂(v · logits)/∂y at every token,
where v is random with E[v vᵀ] = diag(p) − p pᵀ, the Fisher information of the softmax p. A change ΔW then adds
to the loss of an image about ½ E[(Σ_t g_tᵀ ΔW x_t)²] (the Fisher information is the Hessian's Gauss-Newton
part). Labels drawn from p would give the same on average; but of a confident model, all but a few images would
then say next to nothing.

Factorised (Martens & Grosse 2015, arXiv 1503.05671), it is ½ tr(G ΔW C ΔWᵀ). Their C and G add up over tokens
as if errors at different tokens had nothing to do with each other. But they do: what a class token or an
average reads out of all tokens adds up, or cancels. With X (tokens × inputs) and D (tokens × outputs, rows
g_t) of one image, the two factors of the whole sum are

    C ∝ E[Xᵀ (D Dᵀ) X],    G ∝ E[Dᵀ (X Xᵀ) D]

(the Kronecker factors of E[vec Γ vec Γᵀ], Γ = Dᵀ X, after one step of its power iteration; through the tokens'
Gram matrices they take about as long as the others, without forming Γ). We mix both views, ``INDEPENDENT`` of
the one and the rest of the other: an error that cancels where the loss looks today may not do so behind a layer
that changes as well. X is taken about its mean weighted by ‖g‖², which a bias can correct for. In X Xᵀ each
input counts in units of its own deviation: massive activations would drown all others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.data import Batches
from core.errors import NumericalError
from core.frozen import frozen_parameters
from core.running import RunningMoments

DEAD = 1e-5  # of the mean deviation: an input below it is constant
INDEPENDENT = 0.6  # docs/decisions/0002-errors-add-up-over-tokens.md


@dataclass(frozen=True)
class Moments:
    """Of one linear map over the calibration set, float32, on the CPU.

    ``token_weights``: ‖g‖² by row and token. A row is an image, or a window of one, as the map is called.
    """

    mean: Float[Tensor, " inputs"]
    covariance: Float[Tensor, "inputs inputs"]
    gradient: Float[Tensor, "outputs outputs"]
    token_weights: Float[Tensor, "rows tokens"]

    def double(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, covariance and gradient in float64 on ``device``, as the decompositions want them."""
        mean, covariance, gradient = (each.to(device).double() for each in (self.mean, self.covariance, self.gradient))
        return mean, covariance, gradient


class _Layer:
    """What is kept of one layer while the batches go by, on the model's device.

    Products are float32, about a pivot (the first batch's mean), so that massive activations do not cancel; sums are
    float64.
    """

    def __init__(self) -> None:
        self.token_weights: list[Tensor] = []
        self._inputs = RunningMoments()
        self._pivot: Tensor | None = None
        self._spread = torch.ones(())
        self._sums: dict[str, Tensor] = {}

    def add(self, x: Float[Tensor, "rows *tokens inputs"], g: Float[Tensor, "rows *tokens outputs"]) -> None:
        x, g = (each.detach().float().reshape(len(each), -1, each.shape[-1]) for each in (x, g))
        norms = g.square().sum(-1)
        weights = norms + norms.mean().clamp_min(torch.finfo(torch.float32).tiny)  # never all zero
        self.token_weights.append(weights.cpu())
        self._inputs.add(x.flatten(0, 1), weights.flatten())
        if self._pivot is None:
            self._pivot = x.mean((0, 1))
            self._spread = _nowhere_dead((x - self._pivot).square().mean((0, 1)).sqrt())
        x = x - self._pivot
        units = x / self._spread
        alike_x, alike_g = units @ units.mT, g @ g.mT
        weighted = alike_g @ x
        batch = {
            "gg": g.flatten(0, 1).T @ g.flatten(0, 1),
            "gxxg": (alike_x @ g).flatten(0, 1).T @ g.flatten(0, 1),
            "xggx": weighted.flatten(0, 1).T @ x.flatten(0, 1),
            "xgg": weighted.sum((0, 1)),
            "ones_gg": alike_g.sum(),
            "norms": norms.sum(),
            "products": (norms * units.square().sum(-1)).sum(),
        }
        self._sums = {name: self._sums.get(name, 0.0) + each.double() for name, each in batch.items()}

    def moments(self, images: int) -> Moments:
        sums = {name: each.cpu() for name, each in self._sums.items()}
        assert self._pivot is not None
        tiny = torch.finfo(torch.float32).tiny
        mean = self._inputs.means[0].cpu()
        offset = mean - self._pivot.double().cpu()
        crossed = torch.outer(sums["xgg"], offset)
        together = sums["xggx"] - crossed - crossed.T + sums["ones_gg"] * torch.outer(offset, offset)
        energy = (sums["products"] / sums["norms"].clamp_min(tiny)).clamp_min(tiny)  # mean ‖x‖², x in these units
        alone_c, alone_g = self._inputs.covariance.cpu(), sums["gg"]
        together_c, together_g = together / sums["norms"].clamp_min(tiny), sums["gxxg"] / energy
        return Moments(
            mean=mean.float(),
            covariance=torch.lerp(together_c, alone_c, INDEPENDENT).float(),
            gradient=(torch.lerp(together_g, alone_g, INDEPENDENT) / images).float(),
            token_weights=torch.cat(self.token_weights),
        )


def _nowhere_dead(spread: Float[Tensor, " inputs"]) -> Float[Tensor, " inputs"]:
    return spread.clamp_min(DEAD * spread.mean()).clamp_min(torch.finfo(torch.float32).tiny)


def calibrate(
    model: nn.Module,
    paths: Sequence[str],
    data: Batches,
    *,
    seed: int,
    on_images: Callable[[int], None],
) -> dict[str, Moments]:
    """The moments of the linear maps at ``paths``, but of those that no image's gradient reaches.

    ``on_images`` hears the number of images done.
    Raises ``NumericalError`` where the model's logits or gradients are not finite.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    layers = {path: _Layer() for path in paths}

    def listen(layer: _Layer) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if output.requires_grad:  # a map of constants has no gradient
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
                logits.backward(_fisher_sample(logits.detach(), generator))
                done += len(images)
                on_images(done)
    finally:
        for handle in handles:
            handle.remove()
    found = {path: layer.moments(done) for path, layer in layers.items() if layer.token_weights}
    for path, moments in found.items():
        if not (moments.covariance.isfinite().all() and moments.gradient.isfinite().all()):
            raise NumericalError(f"{path}: activations or gradients are not finite on the calibration images")
    return found


def _fisher_sample(logits: Float[Tensor, "images classes"], generator: torch.Generator) -> Tensor:
    """v = √p ⊙ ε − p (√p · ε), with signs ε at random: E[v vᵀ] = diag(p) − p pᵀ, the Fisher information of the logits.

    Signs come from the CPU, so that a seed gives the same on every device.
    """
    probabilities = logits.float().softmax(-1)
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(probabilities) * 2 - 1
    scaled = probabilities.sqrt() * signs
    return (scaled - probabilities * scaled.sum(-1, keepdim=True)).to(logits.dtype)
