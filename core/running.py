"""Weighted means and covariances of a stream of rows, safe against channels with a huge mean."""

import torch
from jaxtyping import Float
from torch import Tensor


class RunningMoments:
    """Over weighted rows x, and optionally their cross moments with targets t.

    Products are taken in float32 about a pivot (the first batch's mean), so that massive activations do not cancel;
    totals are kept in float64. Sums, and what is read of them, stay on the rows' device.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def merged(self, other: "RunningMoments") -> "RunningMoments":
        """The moments of the rows of both."""
        if not self._sums or not other._sums:
            return other if not self._sums else self
        both = RunningMoments()
        both._pivot = self._pivot
        moved = other._about(self._pivot)
        both._sums = {name: each + moved[name] for name, each in self._sums.items()}
        return both

    def _about(self, pivot: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The sums as if they had been taken about another ``pivot``."""
        weight = self._sums["weight"]
        dx, dt = ((old - new).double() for old, new in zip(self._pivot, pivot, strict=True))
        x, t = self._sums["x"], self._sums["t"]
        return {
            "weight": weight,
            "x": x + weight * dx,
            "t": t + weight * dt,
            "xx": self._sums["xx"] + torch.outer(x, dx) + torch.outer(dx, x) + weight * torch.outer(dx, dx),
            "xt": self._sums["xt"] + torch.outer(x, dt) + torch.outer(dx, t) + weight * torch.outer(dx, dt),
        }

    def add(
        self,
        x: Float[Tensor, "rows inputs"],
        weight: Float[Tensor, " rows"],
        t: Float[Tensor, "rows outputs"] | None = None,
    ) -> None:
        x = x.float()
        t = x.new_empty(len(x), 0) if t is None else t.float()
        if not self._sums:
            self._pivot = x.mean(0), t.mean(0)
        x, t = x - self._pivot[0], t - self._pivot[1]
        weighted = x * weight[:, None]
        batch = {"weight": weight, "x": weighted, "t": t * weight[:, None]}
        sums = {name: rows.sum(0, dtype=torch.float64) for name, rows in batch.items()}
        sums |= {"xx": (weighted.T @ x).double(), "xt": (weighted.T @ t).double()}
        self._sums = {name: self._sums[name] + each for name, each in sums.items()} if self._sums else sums

    @property
    def means(self) -> tuple[Float[Tensor, " inputs"], Float[Tensor, " outputs"]]:
        """Of x and of t."""
        return self._mean("x") + self._pivot[0], self._mean("t") + self._pivot[1]

    @property
    def covariance(self) -> Float[Tensor, "inputs inputs"]:
        """Of x."""
        return self._mean("xx") - torch.outer(self._mean("x"), self._mean("x"))

    @property
    def cross_covariance(self) -> Float[Tensor, "inputs outputs"]:
        """Of x with t."""
        return self._mean("xt") - torch.outer(self._mean("x"), self._mean("t"))

    def _mean(self, name: str) -> Tensor:
        return self._sums[name] / self._sums["weight"]
