"""The dense model with zeros that a compressed model must compute the same as."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.families import canonical_copy
from vitpress.layers import Attention, FeedForward, weight_of
from vitpress.plan import Dense, Plan


@torch.no_grad()
def masked_dense(original: nn.Module, compressed: nn.Module, plan: Plan) -> nn.Module:
    """``original`` at its full size, with what ``compressed`` has left in its matrices and zeros for what went.

    A head stays where it was; of its dimensions, and of hidden units, the first so many are those that are left.
    """
    dense = canonical_copy(original)
    smaller = tuple(f"{layer.path}." for layer in plan.layers if not isinstance(layer, Dense))
    rest = {name: each for name, each in compressed.state_dict().items() if not name.startswith(smaller)}
    assert not dense.load_state_dict(rest, strict=False).unexpected_keys
    for layer in plan.layers:
        if isinstance(layer, Dense):
            continue
        full, small = dense.get_submodule(layer.path), compressed.get_submodule(layer.path)
        match full, small:
            case Attention(), Attention():
                _fill_attention_(full, small)
            case FeedForward(), FeedForward():
                units = torch.arange(_rows(small.fc2)[0].shape[1])
                halves = [units + half * full.fc2.in_features for half in range(1 + full.gated)]  # type: ignore[operator]
                _fill_(full.fc1, small.fc1, rows=torch.cat(halves))
                _fill_(full.fc2, small.fc2, columns=units)
            case nn.Linear(), _:
                _fill_(full, small)
            case _:
                raise TypeError(f"{layer.path}: {type(full).__name__} and {type(small).__name__}")
    return dense.eval()


def _fill_attention_(full: Attention, small: Attention) -> None:
    heads = torch.arange(small.heads) if small.kept is None else small.kept
    width = full.heads * full.qk_dim

    def slots(dim: int) -> Tensor:
        return (heads[:, None] * full.qk_dim + torch.arange(dim)).flatten()

    queries, values = slots(small.qk_dim), slots(small.v_dim)
    _fill_(full.qkv, small.qkv, rows=torch.cat([queries, queries + width, values + 2 * width]))
    _fill_(full.proj, small.proj, columns=values)
    for part, of_small in zip(full.by_head(), small.by_head(), strict=True):
        for name, left in of_small.state_dict().items():
            whole = part.state_dict()[name]  # shares its memory with the parameter
            by_head = [axis for axis, size in enumerate(whole.shape) if size == full.heads != left.shape[axis]]
            if by_head:
                whole.index_copy_(by_head[0], heads, left)
            else:
                whole.copy_(left)


def _fill_(full: nn.Module, small: nn.Module, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Zeros everywhere in ``full``, but for ``small`` in these rows and columns. None: in all."""
    weight, bias = _rows(small)
    whole = full.get_parameter("weight")
    rows = torch.arange(len(whole)) if rows is None else rows
    columns = torch.arange(whole.shape[1]) if columns is None else columns
    whole.zero_()[rows[:, None], columns] = weight
    if getattr(full, "bias", None) is None:
        full.register_parameter("bias", nn.Parameter(whole.new_zeros(len(whole))))
    full.get_parameter("bias").zero_()[rows] = bias


def _rows(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map, a factorised one multiplied out."""
    weight = weight_of(linear)
    bias = getattr(linear[-1] if isinstance(linear, nn.Sequential) else linear, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias
