"""Low rank in the Fisher metric: the best r dimensions of a linear map, judged by the loss and not by the weights.

With C = L_c L_cᵀ and G = L_g L_gᵀ (``core.calibrate``), ½ tr(G ΔW C ΔWᵀ) = ½ ‖L_gᵀ ΔW L_c‖². So the best rank-r map
comes from the singular values of L_gᵀ W L_c = U Σ Vᵀ, W_r = (W L_c V_r)(V_rᵀ L_c⁻¹), and dropping component i costs
½ σ_i². What the dropped part said on average stays, in the bias: b' = b + (W − W_r) μ. With G = C = I and μ = 0 this is
the plain truncated SVD; with G = I the activation-aware one.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from scipy.linalg import qr
from torch import Tensor, nn

DAMPING = 1e-4  # of each diagonal entry, added to G and C: far below what matters, far above rounding
# Of G where ranks are chosen: near the classifier G has few directions, but a norm behind minds the others as well.
SENSE_DAMPING = 0.05  # docs/decisions/0002-errors-add-up-over-tokens.md
RANK = 1e-12  # of the loudest output: what is left of one that others determine is rounding
DEAD = 1e-9  # of the mean diagonal: a channel below it says nothing, even where some are 1000 times as loud as most


@dataclass(frozen=True)
class Affine:
    """``y = weight x + bias``, in float64."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"]


@dataclass(frozen=True)
class Factors:
    """``second @ first`` replaces the weight. The components that ``first`` gives have unit variance."""

    first: Float[Tensor, "rank inputs"]
    second: Float[Tensor, "outputs rank"]
    bias: Float[Tensor, " outputs"]


@dataclass(frozen=True)
class Pivots:
    """The same map, as ``vitpress.layers.Pivoted`` keeps it: ``first`` gives r of the outputs, and ``rest`` makes the
    others of these. ``order``: of each output, which of the first it is, or behind these, which of the rest."""

    first: Float[Tensor, "rank inputs"]
    rest: Float[Tensor, "others rank"]
    order: Int[Tensor, " outputs"]


def pivots(factors: Factors) -> Pivots:
    """By a QR decomposition that takes the loudest output that is left each time, so that ``rest`` stays small.

    Outputs that those before them determine are no pivots of others: their columns of ``rest`` are zero.
    """
    second = factors.second.double()
    rank = second.shape[1]
    triangle, chosen = (torch.as_tensor(each) for each in qr(second.T.cpu().numpy(), mode="r", pivoting=True))
    loudness = triangle.diagonal().abs()
    sound = int((loudness > RANK * loudness[0]).sum())
    rest = triangle.new_zeros(rank, len(second) - rank)
    rest[:sound] = torch.linalg.solve_triangular(triangle[:sound, :sound], triangle[:sound, rank:], upper=True)
    chosen = chosen.long().to(second.device)
    return Pivots(second[chosen[:rank]] @ factors.first.double(), rest.T.to(second), chosen.argsort())


class LowRank:
    """Every rank of one linear map. What ranks cost takes the singular values alone; maps take a decomposition."""

    def __init__(
        self,
        linear: Affine,
        mean: Float[Tensor, " inputs"] | None = None,
        covariance: Float[Tensor, "inputs inputs"] | None = None,
        gradient: Float[Tensor, "outputs outputs"] | None = None,
    ) -> None:
        """``covariance`` and ``gradient``: None for the identity."""
        self._linear = linear
        weight = linear.weight
        inputs = weight.shape[1]
        self._mean = weight.new_zeros(inputs) if mean is None else mean
        self._read = torch.eye(inputs).to(weight) if covariance is None else cholesky(covariance)
        seen = weight @ self._read
        self._sensed = seen if gradient is None else cholesky(gradient, SENSE_DAMPING).T @ seen

    def loss(self, rank: int) -> float:
        """Predicted loss that rank ``rank`` adds to one image, in nats; 0: one dense map."""
        return float(self._tails[rank]) if 0 < rank < len(self._tails) else 0.0

    def at(self, rank: int) -> Factors:
        first, second = (each[:rank] for each in self._maps)
        left_out = (self._linear.weight - second.T @ first) @ self._mean
        return Factors(first, second.T, self._linear.bias + left_out)

    @cached_property
    def components(self) -> Float[Tensor, " ranks"]:
        """What it costs to drop each, ½ σ², the largest first."""
        return _components(self._gram)

    @cached_property
    def _gram(self) -> Tensor:
        return _smaller_gram(self._sensed)

    @cached_property
    def _tails(self) -> Tensor:
        return _tails(self.components)

    @cached_property
    def _maps(self) -> tuple[Float[Tensor, "ranks inputs"], Float[Tensor, "ranks outputs"]]:
        return _maps(self._linear.weight, self._read, _right_vectors(self._sensed, self._gram))


def _smaller_gram(matrix: Float[Tensor, "rows columns"]) -> Tensor:
    """Of the smaller side: its eigenvectors are all that is needed, at a fraction of an SVD."""
    return matrix.T @ matrix if matrix.shape[1] <= len(matrix) else matrix @ matrix.T


def _components(gram: Float[Tensor, "ranks ranks"]) -> Float[Tensor, " ranks"]:
    energies: Tensor = torch.linalg.eigvalsh(gram)
    return 0.5 * energies.clamp_min(0).flip(0)


def _tails(components: Float[Tensor, " ranks"]) -> Float[Tensor, " ranks"]:
    """What it costs to drop each component and all after it."""
    return components.flip(0).cumsum(0).flip(0)


def _right_vectors(
    matrix: Float[Tensor, "rows columns"], gram: Float[Tensor, "ranks ranks"]
) -> Float[Tensor, "columns ranks"]:
    """Singular vectors, the largest singular value's first. ``gram``: that of the matrix's smaller side."""
    energies, vectors = torch.linalg.eigh(gram)
    basis: Tensor = vectors.flip(1)
    if matrix.shape[1] > len(matrix):
        basis = matrix.T @ basis / energies.flip(0).clamp_min(torch.finfo(energies.dtype).tiny).sqrt()
    return basis


def _maps(
    weight: Float[Tensor, "outputs inputs"],
    read: Float[Tensor, "inputs inputs"],
    basis: Float[Tensor, "inputs ranks"],
) -> tuple[Float[Tensor, "ranks inputs"], Float[Tensor, "ranks outputs"]]:
    """V_rᵀ L_c⁻¹ and (W L_c V_r)ᵀ for the largest r there is: rows of both belong to one component."""
    first = torch.linalg.solve_triangular(read, basis.T, upper=False, left=False)
    return first, (weight @ (read @ basis)).T


def affine(linear: nn.Module) -> Affine:
    """Weight and bias of a linear map, in float64; a bias that it lacks is zero."""
    assert isinstance(linear, nn.Linear)
    weight = linear.weight.detach().double()
    return Affine(weight, weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().double())


def cholesky(matrix: Float[Tensor, "n n"], damping: float = DAMPING) -> Float[Tensor, "n n"]:
    """The lower triangular root of a covariance, damped; more, where rounding has left it an eigenvalue below that."""
    strength = damping
    while True:
        root: Tensor
        root, failed = torch.linalg.cholesky_ex(damped(matrix, strength))
        if not failed or strength > 1:  # what is not finite has no root at any strength
            return root
        strength *= 10


def damped(matrix: Float[Tensor, "n n"], fraction: float) -> Float[Tensor, "n n"]:
    """The diagonal made larger by ``fraction``, and nowhere zero.

    Each entry by its own: next to a channel with massive activations, a fraction of the mean would bury all others.
    """
    diagonal = matrix.diagonal()
    strength = fraction * diagonal.clamp_min(DEAD * diagonal.mean())
    return matrix + strength.clamp_min(torch.finfo(torch.float32).tiny).diag()
