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

ACTIVATION_BYTES = 2**31  # of the maps' inputs and outputs in one pass; what lies between takes about as much again
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
    """What is kept of one layer while the batches go by, on the model's device: one matrix of its inputs' size, and one
    of its outputs'.

    All is float32, about a pivot (the first batch's mean), so that massive activations do not cancel; what the sums of
    some hundred batches lose to rounding is far below the damping of what is made of them.
    """

    def __init__(self) -> None:
        self.token_weights: list[Tensor] = []
        self._pivot: Tensor | None = None
        self._spread = torch.ones(())
        self._sums: dict[str, Tensor] = {}
        self._covariance = self._gradient = torch.zeros(())

    def add(self, x: Float[Tensor, "rows *tokens inputs"], g: Float[Tensor, "rows *tokens outputs"]) -> None:
        x, g = (each.detach().float().reshape(len(each), -1, each.shape[-1]) for each in (x, g))
        norms = g.square().sum(-1)
        weights = norms + norms.mean().clamp_min(torch.finfo(torch.float32).tiny)  # never all zero
        self.token_weights.append(weights.cpu())
        if self._pivot is None:
            self._pivot = x.mean((0, 1))
            self._spread = _nowhere_dead((x - self._pivot).square().mean((0, 1)).sqrt())
            self._covariance, self._gradient = (each.new_zeros(2 * each.shape[-1:]) for each in (x, g))
        x = x - self._pivot
        units = x / self._spread
        alike_x, alike_g = units @ units.mT, g @ g.mT
        # Both views of the covariance, ready to be divided by the sum of the weights, which is twice that of ‖g‖².
        alone, together = weights[..., None] * x, alike_g @ x
        mixed = INDEPENDENT * alone + 2 * (1 - INDEPENDENT) * together
        self._covariance.addmm_(mixed.flatten(0, 1).T, x.flatten(0, 1))
        rows = g.flatten(0, 1)
        gxxg = (alike_x @ g).flatten(0, 1).T @ rows
        # Both are symmetric: a triangle of each, and the one's diagonal, is all that there is to keep.
        self._gradient += (rows.T @ rows).triu_() + gxxg.tril(-1)
        batch = {
            "gxxg": gxxg.diagonal(),
            "weights": weights.sum(),
            "x": alone.sum((0, 1)),
            "xgg": together.sum((0, 1)),
            "ones_gg": alike_g.sum(),
            "norms": norms.sum(),
            "products": (norms * units.square().sum(-1)).sum(),
        }
        self._sums = {name: self._sums.get(name, 0.0) + each.double() for name, each in batch.items()}

    def moments(self, images: int) -> Moments:
        """The sums are of no use any more after this: their room is given back."""
        sums = {name: each.cpu() for name, each in self._sums.items()}
        assert self._pivot is not None
        tiny = torch.finfo(torch.float32).tiny
        norms = sums["norms"].clamp_min(tiny)
        offset = sums["x"] / sums["weights"]
        crossed = (1 - INDEPENDENT) * torch.outer(sums["xgg"] / norms, offset)
        square = (1 - INDEPENDENT) * sums["ones_gg"] / norms - INDEPENDENT
        covariance = self._covariance.cpu().double() / sums["weights"]
        covariance += square * torch.outer(offset, offset) - crossed - crossed.T
        energy = (sums["products"] / norms).clamp_min(tiny)  # mean ‖x‖², x in these units
        both = self._gradient.cpu()
        self._covariance = self._gradient = torch.zeros(())
        alone = both.triu() + both.triu(1).T
        together = (both.tril(-1) + both.tril(-1).T).diagonal_scatter(sums["gxxg"].float()) / energy
        return Moments(
            mean=(self._pivot.double().cpu() + offset).float(),
            covariance=covariance.float(),
            gradient=torch.lerp(together.float(), alone, INDEPENDENT) / images,
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
    with frozen_parameters(model):
        at_once = _images_at_once(model, paths, next(iter(data))[0][:1].to(device))
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
            for images in (part for batch, _ in data for part in batch.split(at_once)):
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


@torch.no_grad()
def _images_at_once(model: nn.Module, paths: Sequence[str], image: Float[Tensor, "1 channels height width"]) -> int:
    """How many images' inputs and outputs of the maps at ``paths`` fit into ``ACTIVATION_BYTES``."""
    sizes: list[int] = []
    handles = [
        model.get_submodule(path).register_forward_hook(
            lambda _, args, output: sizes.append(args[0].nbytes + output.nbytes)
        )
        for path in paths
    ]
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, ACTIVATION_BYTES // max(1, sum(sizes)))


def _fisher_sample(logits: Float[Tensor, "images classes"], generator: torch.Generator) -> Tensor:
    """v = √p ⊙ ε − p (√p · ε), with signs ε at random: E[v vᵀ] = diag(p) − p pᵀ, the Fisher information of the logits.

    Signs come from the CPU, so that a seed gives the same on every device.
    """
    probabilities = logits.float().softmax(-1)
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(probabilities) * 2 - 1
    scaled = probabilities.sqrt() * signs
    return (scaled - probabilities * scaled.sum(-1, keepdim=True)).to(logits.dtype)
