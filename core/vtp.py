"""Vision Transformer Pruning: gates that learn which dimensions matter (Zhu et al. 2021, arXiv 2104.08500).

A learned gate stands on every input of ``qkv``, ``proj`` and ``fc1``, and on every hidden unit. All start at one, and
are trained together with the weights under the penalty λ Σ|gate|; then one threshold decides which dimensions go. The
gates that stay become a part of the weights, and real smaller matrices are left: ``qkv`` and ``fc1`` read some of the
stream's channels, and values and hidden units are fewer.

What differs from the publication: it trains for 100 epochs on all of ImageNet; here it is the calibration images, so
gates have a learning rate of their own. Heads stay equally wide: a layer loses as many value dimensions of each head as
the threshold tells, of each head its own lowest, where the j-th of all heads count as one dimension with their mean.
The rate is one of parameters, not of dimensions. Gates stand where what they gate can go: not before ``proj`` or
``fc2`` where a norm stands before these. The fine-tune afterwards is the recipe's, distillation (theirs: labels).
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.checkpoints import Checkpoints
from core.data import Prepared
from core.deciding import Deciders, dense_copy, train_
from core.dry_run import gated
from core.gated_plan import Scores
from core.progress import OnProgress
from core.recipe import HybridRecipe, VtpRecipe
from core.shapes import AttentionShape, FeedForwardShape, LayerShape, LinearShape, ModelShape
from vitpress.layers import Attention, FeedForward
from vitpress.plan import Dense, Layer, Plan
from vitpress.shaping import shaped


def vtp(
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    recipe: VtpRecipe,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, Plan]:
    """The smaller model and its plan. ``model`` is left as it is. Raises as ``core.deciding.train_`` does."""
    trained = dense_copy(model, shape)
    gates = Gates(trained, shape.layers)
    learn_(gates, trained, model, data, recipe, on_progress, checkpoints)
    plan = gated(shape, recipe, gates.scores())
    return cut(trained, gates, plan.layers), plan


def learn_(
    gates: "Gates",
    model: nn.Module,
    teacher: nn.Module,
    data: Prepared,
    recipe: VtpRecipe | HybridRecipe,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train ``model`` and its ``gates``, which then are a part of its weights."""
    deciders = Deciders(list(gates.parameters()), recipe.gate_learning_rate, lambda: recipe.gate_penalty * gates.sum())
    train_(model, teacher, data.calibration, recipe, deciders, on_progress, checkpoints)
    gates.fold_()


class Gates(nn.Module):
    """A factor on every gated dimension of the ``layers`` of a model that ``vitpress.layers`` has written."""

    def __init__(self, model: nn.Module, layers: Sequence[LayerShape]) -> None:
        super().__init__()
        self._layers = [layer for layer in layers if not isinstance(layer, LinearShape)]
        self._maps: dict[str, nn.Linear] = {}
        self._values = nn.ParameterDict()
        for layer in self._layers:
            for name in _gated_maps(layer):
                linear = model.get_submodule(f"{layer.path}.{name}")
                assert isinstance(linear, nn.Linear)
                key = _key(layer.path, name)
                self._maps[key] = linear
                self._values[key] = nn.Parameter(torch.ones(linear.in_features, device=linear.weight.device))
        self._handles = [
            linear.register_forward_pre_hook(lambda _, args, key=key: (args[0] * self._values[key],))
            for key, linear in self._maps.items()
        ]

    def of(self, path: str, name: str) -> Tensor | None:
        """(inputs,), of the map ``name`` of the layer at ``path``; None: it has no gates."""
        key = _key(path, name)
        return self._values[key] if key in self._maps else None

    def has(self, path: str) -> bool:
        """Whether there are any on the layer at ``path``."""
        return any(layer.path == path for layer in self._layers)

    def sum(self) -> Tensor:
        """Of all gates' magnitudes."""
        return torch.stack([each.abs().sum() for each in self._values.values()]).sum()

    @torch.no_grad()
    def fold_(self) -> None:
        """Make the gates a part of the weights that read through them. They gate nothing from then on."""
        for handle in self._handles:
            handle.remove()
        for key, linear in self._maps.items():
            linear.weight.mul_(self._values[key])

    def scores(self) -> dict[str, Scores]:
        """By layer. The j-th best value dimensions of all heads have one score, their mean."""

        def of(layer: LayerShape, name: str) -> list[float]:
            gates = self.of(layer.path, name)
            if gates is None:
                return []
            magnitudes = gates.detach().abs()
            if isinstance(layer, AttentionShape) and name == "proj":
                magnitudes = magnitudes.view(layer.heads, -1).sort(1).values.mean(0)
            return magnitudes.tolist()

        names = {"attention": ("qkv", "proj"), "feed_forward": ("fc1", "fc2")}
        return {layer.path: Scores(*(of(layer, name) for name in names[layer.kind])) for layer in self._layers}


@torch.no_grad()
def cut(trained: nn.Module, gates: Gates, layers: Sequence[Layer]) -> nn.Module:
    """A copy of ``trained`` with the gated ``layers`` at their sizes: of each kind of dimension the highest gates."""
    smaller = copy.deepcopy(trained)
    for layer in layers:
        if isinstance(layer, Dense) or not gates.has(layer.path):
            continue
        whole = trained.get_submodule(layer.path)
        module = shaped(smaller.get_submodule(layer.path), layer)
        match whole, module:
            case Attention(), Attention():
                read = _highest(gates.of(layer.path, "qkv"), module.inputs, whole.qkv)
                width = whole.heads * whole.v_dim
                values = torch.arange(width, device=read.device)
                by_head = gates.of(layer.path, "proj")
                if by_head is not None and module.v_dim < whole.v_dim:
                    order = by_head.abs().view(whole.heads, -1).argsort(1, descending=True)
                    best = order[:, : module.v_dim].sort(1).values
                    values = (best + whole.v_dim * torch.arange(whole.heads, device=read.device)[:, None]).flatten()
                first_value = 2 * whole.heads * whole.qk_dim
                rows = torch.cat([torch.arange(first_value, device=read.device), first_value + values])
                _copy_(module.qkv, whole.qkv, rows, read)
                _copy_(module.proj, whole.proj, None, values)
            case FeedForward(), FeedForward():
                read = _highest(gates.of(layer.path, "fc1"), module.inputs, whole.fc1)
                narrow = module.fc2.get_parameter("weight").shape[1]
                hidden = whole.fc2.get_parameter("weight").shape[1]
                units = torch.arange(hidden, device=read.device)
                of_units = gates.of(layer.path, "fc2")
                if of_units is not None and narrow < hidden:
                    units = of_units.abs().argsort(descending=True)[:narrow].sort().values
                rows = torch.cat([units, hidden + units]) if whole.gated else units
                _copy_(module.fc1, whole.fc1, rows, read)
                _copy_(module.fc2, whole.fc2, None, units)
        if isinstance(module, Attention | FeedForward) and module.inputs is not None:
            module.inputs.copy_(read)
    return smaller.eval()


def _highest(gates: Tensor | None, inputs: Tensor | None, linear: nn.Module) -> Tensor:
    """Which of a map's inputs it still reads, in their order; ``inputs``: as many as it has room for."""
    weight = linear.get_parameter("weight")
    if gates is None or inputs is None:
        return torch.arange(weight.shape[1], device=weight.device)
    return gates.abs().argsort(descending=True)[: len(inputs)].sort().values


def _copy_(module: nn.Module, whole: nn.Module, rows: Tensor | None, columns: Tensor) -> None:
    """Give ``module`` the ``rows`` and ``columns`` of a larger map; None: all rows."""
    weight, bias = whole.get_parameter("weight"), getattr(whole, "bias", None)
    rows = torch.arange(len(weight), device=weight.device) if rows is None else rows
    module.get_parameter("weight").copy_(weight[rows][:, columns])
    module.get_parameter("bias").copy_(torch.zeros_like(weight[:, 0])[rows] if bias is None else bias[rows])


def _gated_maps(layer: AttentionShape | FeedForwardShape) -> list[str]:
    match layer:
        case AttentionShape():
            return ["qkv", "proj"] if layer.free_values else ["qkv"]
        case FeedForwardShape():
            return ["fc1", "fc2"] if layer.free_units else ["fc1"]


def _key(path: str, name: str) -> str:
    return f"{path}.{name}".replace(".", "/")  # no dots in the names of parameters
