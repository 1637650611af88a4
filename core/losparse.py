"""W ≈ U V + S, S with few rows: low rank for what neurons share, some neurons whole (Li et al. 2023, arXiv 2306.11222).

U V begins as the truncated SVD of W, and S = W − U V, so that nothing is lost at first. While all three are trained,
the rows of S go, those of all maps under one threshold, on a cubic schedule. With the sensitivity s = |S · ∂ℓ/∂S| of a
weight, its moving average Ī and the moving average U of |s − Ī|, a row's score is the mean of Ī · U over it (PLATON;
Zhang et al. 2022, arXiv 2206.12562). A row that went is zero but still trained, and comes back if its score rises.

What differs from the publication: it compresses language models, at one rank and one share of S in every map, given by
the user. Here the ranks follow from the ratio asked for and ``low_rank_share``, and the threshold is where the ratio is
met; a map that would be larger in two parts than in one becomes dense again. The stages of the schedule are fractions
of the training, which is on the calibration images; the fine-tune afterwards is the recipe's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.checkpoints import Checkpoints
from core.data import Prepared
from core.deciding import Deciders, dense_copy, train_
from core.dry_run import checked, losparse_room, losparse_target
from core.losparse_plan import MapShape, Neuron, drop, maps_of, neurons_left, plan, ranks
from core.lowrank import Factors, LowRank, affine
from core.pools import divide
from core.progress import OnProgress
from core.rebuild import set_
from core.recipe import LoSparseRecipe
from core.shapes import ModelShape
from vitpress.layers import LowRankSparse
from vitpress.plan import Plan
from vitpress.shaping import shaped

SENSITIVITY_MEMORY = 0.85  # of the moving average of s, as published
UNCERTAINTY_MEMORY = 0.95  # of that of |s − Ī|; ours, the publication gives none
WARM_UP, SETTLING = 0.05, 0.25  # fractions of the training before the first row goes, and after the last one has gone
PRUNE_EVERY = 10  # steps


def losparse(
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    recipe: LoSparseRecipe,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, Plan]:
    """The smaller model and its plan. ``model`` is left as it is. Raises as ``core.deciding.train_`` does."""
    trained = dense_copy(model, shape)
    maps = [_with_bias(each, trained) for layer in shape.layers for each in maps_of(layer)]
    within = losparse_room(shape, recipe)
    rank = ranks(maps, divide(shape, recipe, within), recipe.low_rank_share)
    parts = [Decomposed(trained.get_submodule(each.path), rank[each.path]) for each in maps]
    for each, part in zip(maps, parts, strict=True):
        trained.set_submodule(each.path, part)
    target = losparse_target(shape, recipe)
    pruner = Pruner(parts, lambda scores: drop(maps, rank, scores, target, within))
    train_(trained, model, data.calibration, recipe, pruner.deciders, on_progress, checkpoints)
    chosen = checked(plan(shape, maps, rank, neurons_left(maps, pruner.dropped)), shape, recipe)
    entries = {layer.path: layer for layer in chosen.layers}
    for index, (each, part) in enumerate(zip(maps, parts, strict=True)):
        module = shaped(part.dense(), entries[each.path])
        part.give_(module, part.rows_without([output for gone, output in pruner.dropped if gone == index]))
        trained.set_submodule(each.path, module)
    return trained.eval(), chosen


class Decomposed(nn.Module):
    """A linear map as U V + S, all of it trained: ``(…, inputs)`` to ``(…, outputs)``."""

    def __init__(self, linear: nn.Module, rank: int) -> None:
        super().__init__()
        whole = affine(linear)
        factors = LowRank(whole).at(rank)
        # Both factors with half of each singular value's logarithm, so that neither learns faster than the other.
        halves = factors.second.norm(dim=0).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        like = linear.get_parameter("weight")
        self.first = nn.Parameter((factors.first * halves[:, None]).to(like))
        self.second = nn.Parameter((factors.second / halves).to(like))
        self.sparse = nn.Parameter((whole.weight - factors.second @ factors.first).to(like))
        bias = getattr(linear, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.second @ self.first + self.sparse, self.bias)

    def rows_without(self, outputs: Sequence[int]) -> Tensor:
        """The rows of S but for ``outputs``, in their order."""
        stays = torch.ones(len(self.sparse), dtype=torch.bool, device=self.sparse.device)
        stays[list(outputs)] = False
        return stays.nonzero()[:, 0]

    @torch.no_grad()
    def dense(self) -> nn.Linear:
        """As one map."""
        outputs, inputs = self.sparse.shape
        linear = nn.Linear(inputs, outputs, self.bias is not None).to(self.sparse)
        linear.weight.copy_(self.second @ self.first + self.sparse)
        if self.bias is not None:
            linear.bias.copy_(self.bias)
        return linear

    @torch.no_grad()
    def give_(self, module: nn.Module, rows: Tensor) -> None:
        """Fill ``module``, a factorised map with room for these ``rows`` of S, or none; a dense one is complete."""
        bias = torch.zeros_like(self.sparse[:, 0]) if self.bias is None else self.bias
        if isinstance(module, LowRankSparse):
            module.get_parameter("first.weight").copy_(self.first)
            module.get_parameter("second.weight").copy_(self.second)
            module.get_parameter("second.bias").copy_(bias)
            module.get_parameter("sparse.weight").copy_(self.sparse[rows])
            module.get_buffer("neurons").copy_(rows)
        elif isinstance(module, nn.Sequential):
            set_(module, Factors(self.first, self.second, bias))


class Pruner:
    """Scores the rows of all S, and makes those zero that ``choose`` would have go, ever more of them."""

    def __init__(self, parts: Sequence[Decomposed], choose: Callable[[list[list[float]]], list[Neuron]]) -> None:
        self._parts, self._choose = parts, choose
        self._sensitivity = [torch.zeros_like(part.sparse) for part in parts]
        self._uncertainty = [torch.zeros_like(part.sparse) for part in parts]
        self._steps = 0
        self.dropped: list[Neuron] = []  # by the last step

    @property
    def deciders(self) -> Deciders:
        return Deciders(after_backward=self._look, after_step=self._prune, state=self._state, become_=self._become_)

    def _state(self) -> dict[str, Tensor]:
        kinds = {"sensitivity": self._sensitivity, "uncertainty": self._uncertainty}
        scored = {f"{kind}:{index}": each for kind, some in kinds.items() for index, each in enumerate(some)}
        return scored | {
            "steps": torch.tensor(self._steps),
            "dropped": torch.tensor(self.dropped, dtype=torch.long).reshape(-1, 2),
        }

    @torch.no_grad()
    def _become_(self, state: Mapping[str, Tensor]) -> None:
        for index, (sensitivity, uncertainty) in enumerate(zip(self._sensitivity, self._uncertainty, strict=True)):
            sensitivity.copy_(state[f"sensitivity:{index}"])
            uncertainty.copy_(state[f"uncertainty:{index}"])
        self._steps = int(state["steps"])
        self.dropped = [(index, output) for index, output in state["dropped"].tolist()]

    @torch.no_grad()
    def _look(self) -> None:
        for part, sensitivity, uncertainty in zip(self._parts, self._sensitivity, self._uncertainty, strict=True):
            gradient = part.sparse.grad
            if gradient is None:  # no image reaches the map
                continue
            now = (part.sparse * gradient).abs()
            sensitivity.lerp_(now, 1 - SENSITIVITY_MEMORY)
            uncertainty.lerp_((now - sensitivity).abs(), 1 - UNCERTAINTY_MEMORY)

    def scores(self) -> list[list[float]]:
        """By map and row of S."""
        pairs = zip(self._sensitivity, self._uncertainty, strict=True)
        return [(sensitivity * uncertainty).mean(1).tolist() for sensitivity, uncertainty in pairs]

    @torch.no_grad()
    def _prune(self, done: float) -> None:
        self._steps += 1
        if done < 1 and (self._steps % PRUNE_EVERY or done < WARM_UP):
            return
        will_go = self._choose(self.scores())
        self.dropped = will_go[: round(portion(done) * len(will_go))]
        for index, part in enumerate(self._parts):
            part.sparse[[output for gone, output in self.dropped if gone == index]] = 0


def portion(done: float) -> float:
    """Of the rows that will go, those that are gone when the fraction ``done`` of the training is over: cubic."""
    left = 1 - (done - WARM_UP) / (1 - WARM_UP - SETTLING)
    return 1 - min(1.0, max(0.0, left)) ** 3


def _with_bias(each: MapShape, model: nn.Module) -> MapShape:
    return replace(each, adds_bias=getattr(model.get_submodule(each.path), "bias", None) is None)
