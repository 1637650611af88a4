"""Optimal brain surgery on the inputs of a linear map: which can go when the others may take over.

Removing inputs R of y = W x costs ½ tr(G W_R ([C⁻¹]_RR)⁻¹ W_Rᵀ) once the rest does W − W_R ([C⁻¹]_RR)⁻¹ [C⁻¹]_R,:
(Hassibi & Stork 1992, in the metric of ``core.calibrate``); C⁻¹ is then down-dated, and the next can go.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from core.lowrank import cholesky, damped

DAMPING = 1e-3  # of each diagonal entry, added to C: keeps C⁻¹ finite where inputs are collinear


class Surgeon:
    """The inputs that remain, ``remaining``, and the predicted ``loss`` (nats an image) of all that are gone."""

    def __init__(
        self,
        weight: Float[Tensor, "outputs inputs"],
        covariance: Float[Tensor, "inputs inputs"],
        gradient: Float[Tensor, "outputs outputs"],
    ) -> None:
        self._inverse = torch.linalg.inv(damped(covariance, DAMPING))
        self._sensed = cholesky(gradient).T @ weight  # a column's squared norm is wᵀ G w
        self.remaining = torch.arange(weight.shape[1], device=weight.device)
        self.loss = 0.0

    def copy(self) -> "Surgeon":
        twin = object.__new__(Surgeon)
        twin.__dict__.update(self.__dict__)
        return twin

    def scores(self) -> Float[Tensor, " remaining"]:
        """What removing each input alone would cost."""
        scores: Tensor = 0.5 * self._sensed.square().sum(0) / self._inverse.diagonal()
        return scores

    def cost(self, positions: Tensor) -> float:
        """What removing the inputs at ``positions`` among the remaining ones would cost, all at once."""
        return self._removal(positions)[0]

    def remove_(self, positions: Tensor) -> None:
        cost, shift = self._removal(positions)
        stays = torch.ones(len(self.remaining), dtype=torch.bool, device=positions.device).index_fill(
            0, positions, False
        )
        self._sensed = (self._sensed - self._sensed[:, positions] @ shift)[:, stays]
        self._inverse = (self._inverse - self._inverse[:, positions] @ shift)[stays][:, stays]
        self.remaining = self.remaining[stays]
        self.loss += cost

    def _removal(self, positions: Tensor) -> tuple[float, Float[Tensor, "removed remaining"]]:
        """The cost, and ([C⁻¹]_RR)⁻¹ [C⁻¹]_R,:."""
        rows = self._inverse[positions]
        shift = torch.linalg.solve(rows[:, positions], rows)
        columns = self._sensed[:, positions].T
        return 0.5 * float((columns * torch.linalg.solve(rows[:, positions], columns)).sum()), shift


def take_over(
    linear_weight: Float[Tensor, "outputs inputs"],
    mean: Float[Tensor, " inputs"],
    covariance: Float[Tensor, "inputs inputs"],
    kept: Tensor,
) -> tuple[Float[Tensor, "outputs kept"], Float[Tensor, " outputs"]]:
    """The weight on the ``kept`` inputs that does the work of all, and what to add to the bias (ridge regression)."""
    regularised = damped(covariance, DAMPING)[kept][:, kept]
    weight = torch.linalg.solve(regularised, covariance[kept] @ linear_weight.T).T
    return weight, linear_weight @ mean - weight @ mean[kept]
