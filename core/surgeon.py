"""Optimal brain surgery on the inputs of a linear map: which can go when the others may take over.

Removing inputs R of y = W x costs ½ tr(G W_R ([C⁻¹]_RR)⁻¹ W_Rᵀ) once the rest does W − W_R ([C⁻¹]_RR)⁻¹ [C⁻¹]_R,:
(Hassibi & Stork 1992, in the metric of ``core.calibrate``); C⁻¹ is then down-dated, and the next can go.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from core.lowrank import cholesky, damped

DELAY = 256  # removals that wait: of 4096 inputs, by blocks of 16, nearly all go in 5 s of a core and not in 38
DAMPING = 1e-3  # of each diagonal entry, added to C: keeps C⁻¹ finite where inputs are collinear


class Surgeon:
    """The inputs that remain, ``remaining``, and the predicted ``loss`` (nats an image) of all that are gone.

    Down-dates are put off: C⁻¹ and G^½ W are what they were, less a product of thin matrices, until ``DELAY`` inputs
    are gone. Whole matrices are then written once for many removals, which is what took the time.
    """

    def __init__(
        self,
        weight: Float[Tensor, "outputs inputs"],
        covariance: Float[Tensor, "inputs inputs"],
        gradient: Float[Tensor, "outputs outputs"],
    ) -> None:
        self.loss = 0.0
        self._names = torch.arange(weight.shape[1], device=weight.device)
        inverse = torch.cholesky_inverse(cholesky(covariance, DAMPING))
        self._start_(inverse, cholesky(gradient).T @ weight)  # a column's squared norm is wᵀ G w

    def _start_(self, inverse: Float[Tensor, "inputs inputs"], sensed: Float[Tensor, "outputs inputs"]) -> None:
        self._inverse, self._sensed = inverse, sensed
        # C⁻¹ is now _inverse − _thinᵀ _thin, and G^½ W is _sensed − _shares _thin; in the columns that stay.
        self._thin, self._shares = inverse.new_zeros(0, len(inverse)), sensed.new_zeros(len(sensed), 0)
        self._stay = torch.arange(len(inverse), device=inverse.device)
        self._variances, self._energies = inverse.diagonal(), sensed.square().sum(0)

    @property
    def remaining(self) -> Tensor:
        return self._names[self._stay]

    def copy(self) -> "Surgeon":
        twin = object.__new__(Surgeon)
        twin.__dict__.update(self.__dict__)
        return twin

    def scores(self) -> Float[Tensor, " remaining"]:
        """What removing each input alone would cost."""
        scores: Tensor = 0.5 * self._energies[self._stay] / self._variances[self._stay]
        return scores

    def cost(self, positions: Tensor) -> float:
        """What removing the inputs at ``positions`` among the remaining ones would cost, all at once."""
        gone = self._stay[positions]
        own = self._inverse[gone][:, gone] - self._thin[:, gone].T @ self._thin[:, gone]
        return 0.5 * float(self._share(gone, own).square().sum())

    def remove_(self, positions: Tensor) -> None:
        gone = self._stay[positions]
        rows = self._inverse[gone] - self._thin[:, gone].T @ self._thin
        thin = torch.linalg.solve_triangular(_root(rows[:, gone]), rows, upper=False)
        share = self._share(gone, rows[:, gone])
        self.loss += 0.5 * float(share.square().sum())
        taken = share.T @ self._sensed - (share.T @ self._shares) @ self._thin
        self._energies = self._energies + (thin * ((share.T @ share) @ thin - 2 * taken)).sum(0)
        self._variances = self._variances - thin.square().sum(0)
        self._thin, self._shares = torch.cat([self._thin, thin]), torch.cat([self._shares, share], 1)
        self._stay = self._stay[_others(positions, len(self._stay))]
        if len(self._thin) >= DELAY:
            self._catch_up_()

    def _share(self, gone: Tensor, own: Float[Tensor, "gone gone"]) -> Float[Tensor, "outputs gone"]:
        """What the loss minds of ``gone``, in the basis where ``own``, their part of C⁻¹, is the identity."""
        columns = self._sensed[:, gone] - self._shares @ self._thin[:, gone]
        share: Tensor = torch.linalg.solve_triangular(_root(own), columns.T, upper=False).T
        return share

    def _catch_up_(self) -> None:
        stay, self._names = self._stay, self.remaining
        thin = self._thin[:, stay]
        self._start_(
            torch.addmm(self._inverse[stay][:, stay], thin.T, thin, alpha=-1),
            torch.addmm(self._sensed[:, stay], self._shares, thin, alpha=-1),
        )


def _root(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    root: Tensor = torch.linalg.cholesky_ex(matrix)[0]
    return root


def _others(positions: Tensor, count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool, device=positions.device).index_fill(0, positions, False)


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
