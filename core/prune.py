"""Fewer hidden units: optimal brain surgery on the input of a feed-forward block's second map.

Removing hidden unit j, with the others compensating, costs ½ w_jᵀ G w_j / [C⁻¹]_jj, w_j being its column of fc2
(Hassibi & Stork 1992, in the metric of ``core.calibrate``). The units go in small blocks, cheapest first, C⁻¹ and W
down-dated in closed form, so that one run gives the loss at every width. The kept units K then take over:

    W' = W C_{:,K} (C_KK + λI)⁻¹,   b' = b + W μ − W' μ_K.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.layers import Mlp
from torch import Tensor

from core.calibrate import Moments
from core.lowrank import affine, square_root

BLOCKS = 256  # removals of a whole block; more would be finer than any curve needs and slower
DAMPING = 1e-3  # of the mean diagonal, added to C: keeps C⁻¹ finite where units are collinear


@dataclass(frozen=True)
class Kept:
    """The weights of the narrower block. ``units``: which hidden units they are."""

    units: Tensor
    fc1_weight: Float[Tensor, "width inputs"]
    fc1_bias: Float[Tensor, " width"]
    fc2_weight: Float[Tensor, "outputs width"]
    fc2_bias: Float[Tensor, " outputs"]


class PruneCandidate:
    """Every width of one feed-forward block, from one order of removal."""

    def __init__(self, mlp: Mlp, moments: Moments | None) -> None:
        """``moments`` are those of ``fc2``; None for magnitude pruning: ‖fc1 row‖ · ‖fc2 column‖, no compensation."""
        self._fc1, self._bias1 = affine(mlp.fc1)
        self._fc2, self._bias2 = affine(mlp.fc2)
        self._moments = moments
        if moments is None:
            score = self._fc1.norm(dim=1) * self._fc2.norm(dim=0)
            self._order = score.argsort()
            self._losses = torch.cat([torch.zeros(1).double(), score[self._order].square().cumsum(0)])
        else:
            self._order, self._losses = removal_order(self._fc2, moments)

    def loss(self, width: int) -> float:
        """Predicted loss that ``width`` adds to one image, in nats (magnitude: the energy removed)."""
        return float(self._losses[len(self._order) - width])

    def at(self, width: int) -> Kept:
        units = self._order[len(self._order) - width :].sort().values
        weight, bias = self._fc2[:, units], self._bias2
        if self._moments is not None:
            mean, covariance = self._moments.mean, self._moments.covariance
            ridge = DAMPING * covariance.diagonal().mean() * torch.eye(width).double()
            weight = torch.linalg.solve(covariance[units][:, units] + ridge, covariance[units] @ self._fc2.T).T
            bias = bias + self._fc2 @ mean - weight @ mean[units]
        return Kept(units, self._fc1[units], self._bias1[units], weight, bias)


def removal_order(
    weight: Float[Tensor, "outputs hidden"], moments: Moments
) -> tuple[Tensor, Float[Tensor, " hidden_plus_1"]]:
    """The hidden units in the order of their removal, and the predicted loss after removing the first n of them."""
    hidden = weight.shape[1]
    block = max(1, hidden // BLOCKS)
    damping = DAMPING * moments.covariance.diagonal().mean() * torch.eye(hidden).double()
    inverse = torch.linalg.inv(moments.covariance + damping)
    sensed = square_root(moments.gradient)[0] @ weight  # G^½ W: a column's squared norm is wᵀ G w
    remaining = torch.arange(hidden)
    order, losses, total = [], [torch.zeros(1).double()], torch.zeros(()).double()
    while len(remaining):
        scores = sensed.square().sum(0) / inverse.diagonal()
        gone = scores.argsort()[:block]
        stays = torch.ones(len(remaining), dtype=torch.bool).index_fill(0, gone, False)
        among = inverse[gone][:, gone]
        shift = torch.linalg.solve(among, inverse[gone])
        removed = 0.5 * (sensed[:, gone].T * torch.linalg.solve(among, sensed[:, gone].T)).sum()
        losses.append(total + torch.linspace(0, 1, len(gone) + 1).double()[1:] * removed)
        total = losses[-1][-1]
        order.append(remaining[gone])
        sensed = (sensed - sensed[:, gone] @ shift)[:, stays]
        inverse = (inverse - inverse[:, gone] @ shift)[stays][:, stays]
        remaining = remaining[stays]
    return torch.cat(order), torch.cat(losses)
