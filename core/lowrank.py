"""Low rank in the Fisher metric: the best r dimensions of a linear map, judged by the loss and not by the weights.

With S = G^½ W C^½ = U Σ Vᵀ (G, C: ``core.calibrate``), the rank-r map that adds the least predicted loss is
W_r = (G^-½ U_r Σ_r)(V_rᵀ C^-½), and dropping component i costs ½ σ_i². What the dropped part said on average stays,
in the bias: b' = b + (W − W_r) μ. With G = C = I and μ = 0 this is the plain truncated SVD.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.calibrate import Moments

DAMPING = 1e-4  # of the mean diagonal, added to G and C: far below what matters, far above rounding


@dataclass(frozen=True)
class Factors:
    """``second @ first`` replaces the weight. The components that ``first`` gives have unit variance."""

    first: Float[Tensor, "rank inputs"]
    second: Float[Tensor, "outputs rank"]
    bias: Float[Tensor, " outputs"]


class LowRankCandidate:
    """Every rank of one linear map, from one decomposition."""

    def __init__(self, linear: nn.Linear, moments: Moments | None) -> None:
        """``moments``: None for the plain SVD of the weight."""
        self._weight, self._bias = affine(linear)
        if moments is None:
            outputs, inputs = self._weight.shape
            self._mean = torch.zeros(inputs).double()
            whiten_g = unwhiten_g = torch.eye(outputs).double()
            whiten_c = torch.eye(inputs).double()
        else:
            self._mean = moments.mean
            whiten_g, unwhiten_g = square_root(moments.gradient)
            whiten_c, _ = square_root(moments.covariance)
        left, self._sigma, _ = torch.linalg.svd(whiten_g @ self._weight @ whiten_c, full_matrices=False)
        # Σ Vᵀ C^-½ = Uᵀ G^½ W: the same factor without inverting C.
        self._first = left.T @ whiten_g @ self._weight
        self._second = unwhiten_g @ left

    def loss(self, rank: int) -> float:
        """Predicted loss that rank ``rank`` adds to one image, in nats."""
        return 0.5 * float(self._sigma[rank:].square().sum())

    def at(self, rank: int) -> Factors:
        scale = self._sigma[:rank].clamp_min(torch.finfo(torch.float32).tiny)
        first, second = self._first[:rank] / scale[:, None], self._second[:, :rank] * scale
        return Factors(first, second, self._bias + (self._weight - second @ first) @ self._mean)


def affine(linear: nn.Module) -> tuple[Float[Tensor, "outputs inputs"], Float[Tensor, " outputs"]]:
    """Weight and bias of a linear map, float64 on the CPU; a bias that it lacks is zero."""
    assert isinstance(linear, nn.Linear)
    weight = linear.weight.detach().double().cpu()
    bias = torch.zeros(len(weight)).double() if linear.bias is None else linear.bias.detach().double().cpu()
    return weight, bias


def square_root(matrix: Float[Tensor, "n n"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n n"]]:
    """The symmetric square root of a covariance, damped, and its inverse."""
    damping = DAMPING * matrix.diagonal().mean()
    values, vectors = torch.linalg.eigh(matrix)
    root = (values.clamp_min(0) + damping).sqrt()
    return vectors * root @ vectors.T, vectors / root @ vectors.T
