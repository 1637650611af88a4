"""What every size of a layer costs on this device, in milliseconds: measured at some sizes, interpolated between.

A layer's time is taken as the sum of its operations' times: linear maps by (rows, inputs, outputs), attention's
products by heads and dimensions, activations by width. Each is measured at a grid of sizes, turn about with all the
others, and interpolated linearly between the logarithms of sizes and times. What else a layer does is taken to be the
same at any size.
"""

import copy
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.curves import Numbers
from core.measure import wait_for
from core.progress import OnProgress, Progress, Stage
from core.shapes import AttentionShape, AttentionSize, FeedForwardShape, LayerShape, LinearShape, ModelShape
from core.steps import head_counts
from vitpress.layers import Attention, FeedForward

SMALLEST = 8  # of a size that is measured: below, a kernel's start is all there is
LEAST_ROUNDS, MOST_ROUNDS = 3, 25
SECONDS = 20.0  # for the rounds between these
SPAN = 2e-4  # seconds that one timing takes at least, in repetitions of what is faster

Key = tuple[Any, ...]  # an operation and its sizes


class Grid:
    """Positive values at the points of a grid of sizes, interpolated in the logarithms, constant beyond the edges."""

    def __init__(self, axes: Sequence[Sequence[int]], values: Numbers) -> None:
        """``axes``: ascending sizes. ``values``: one for each point, of the shape that the axes' lengths make."""
        self._axes = [np.log(np.asarray(axis, float)) for axis in axes]
        self._logs = np.log(values)

    def __call__(self, *sizes: Any) -> Numbers:
        """At sizes that are numbers, or arrays of one shape."""
        places = [_place(axis, size) for axis, size in zip(self._axes, sizes, strict=True)]
        total = np.zeros(())
        for corner in itertools.product((0, 1), repeat=len(places)):
            indices = tuple(np.minimum(low + step, top) for step, (low, _, top) in zip(corner, places, strict=True))
            weights = (after if step else 1 - after for step, (_, after, _) in zip(corner, places, strict=True))
            total = total + prod(weights, start=np.ones(())) * self._logs[indices]
        return np.exp(total)


def _place(axis: Numbers, size: Any) -> tuple[Any, Any, int]:
    """Between which two of an axis's points a size lies: the index of the lower, how far above it, the last index."""
    logs = np.log(np.maximum(np.asarray(size, float), 1))
    low = np.clip(np.searchsorted(axis, logs, side="right") - 1, 0, max(0, len(axis) - 2))
    if len(axis) == 1:
        return low, np.zeros_like(logs), 0
    return low, np.clip((logs - axis[low]) / (axis[low + 1] - axis[low]), 0, 1), len(axis) - 1


@dataclass(frozen=True)
class LayerCosts:
    """Milliseconds of one layer's operations, by size: of its linear maps by name, and of what stands between them."""

    maps: Mapping[str, Grid]
    between: Grid | None

    def __call__(self, shape: LayerShape, size: Any) -> Numbers:
        match shape:
            case LinearShape():
                return self._map("", shape.in_features, shape.out_features, size.rank)
            case FeedForwardShape():
                assert self.between
                read = self._map("fc1", shape.in_features, shape.halves * size.width, size.fc1_rank)
                write = self._map("fc2", size.width, shape.out_features, size.fc2_rank)
                return read + self.between(size.width) + write
            case AttentionShape():
                assert self.between
                wide, narrow = size.heads * (2 * size.qk_dim + size.v_dim), size.heads * size.v_dim
                read = self._map("qkv", shape.in_features, wide, size.qkv_rank)
                write = self._map("proj", narrow, shape.out_features, size.proj_rank)
                return read + self.between(size.heads, size.qk_dim, size.v_dim) + write

    def _map(self, name: str, inputs: Any, outputs: Any, rank: Any) -> Numbers:
        """Dense where the rank is 0, or as two. A form that computes more than the dense one is none, however it was
        timed."""
        grid = self.maps[name]
        rank = np.asarray(rank)
        as_two = np.where(
            rank * (inputs + outputs) < inputs * outputs, grid(inputs, rank) + grid(rank, outputs), np.inf
        )
        return np.where(rank == 0, grid(inputs, outputs), as_two)


@dataclass(frozen=True)
class CostTable:
    """The costs of a model's layers, by path, and of the ``rest`` of the model, in milliseconds."""

    layers: Mapping[str, LayerCosts]
    rest: float

    def whole(self, shape: ModelShape) -> float:
        """Of the dense model, as a sum like any price. A busy machine interrupts what takes long, and a whole forward
        pass would bear what the medians of single operations are spared."""
        return self.rest + sum(float(self.milliseconds(layer, layer.full)) for layer in shape.layers)

    def milliseconds(self, shape: LayerShape, size: Any) -> Numbers:
        """Of a layer at ``size``, whose members may be arrays."""
        return self.layers[shape.path](shape, size)

    def gain(self, shape: LayerShape, size: Any) -> Numbers:
        """What ``size`` saves: ``core.curves.Gain``. Below zero for a form that is slower than the dense one."""
        return self.milliseconds(shape, shape.full) - self.milliseconds(shape, size)


def measure_costs(
    canonical: nn.Module,
    shape: ModelShape,
    images: Float[Tensor, "batch channels height width"],
    on_progress: OnProgress,
) -> CostTable:
    """Time the operations of all layers, for batches like ``images``, on the device and in the type of the model.

    ``canonical``: a model in our modules (``core.families.canonical_copy``).
    """
    bench = _Bench(next(canonical.parameters()))
    rest = bench.model(_hollow(canonical, shape), images)
    wanted = [_Wanted(layer, canonical.get_submodule(layer.path), len(images), bench) for layer in shape.layers]
    bench.run(lambda fraction: on_progress(Progress(Stage.COMPRESS, 0.5 + 0.1 * fraction)))
    return CostTable({each.path: each.costs() for each in wanted}, bench.milliseconds[rest])


class _Nothing(nn.Module):
    """Stands in for a layer that has its own price."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, x: Tensor, *_: object, **__: object) -> Tensor:
        return x if x.shape[-1] == self._outputs else x.new_zeros(*x.shape[:-1], self._outputs)


def _hollow(canonical: nn.Module, shape: ModelShape) -> nn.Module:
    """A copy in which the layers of ``shape`` do nothing. Their weights are not copied."""
    instead = {id(canonical.get_submodule(layer.path)): _Nothing(layer.out_features) for layer in shape.layers}
    return copy.deepcopy(canonical, dict(instead))


class _Wanted:
    """Asks the bench for the points of one layer's grids, and reads them when they have been measured."""

    def __init__(self, shape: LayerShape, module: nn.Module, batch: int, bench: "_Bench") -> None:
        self.path, self._bench = shape.path, bench
        self._maps: dict[str, tuple[list[list[int]], list[Key]]] = {}
        self._between: tuple[list[list[int]], list[Key]] | None = None
        rows = batch * shape.tokens

        def linear(name: str, inputs: int, outputs: int) -> None:
            axes = [levels(inputs), levels(outputs)]
            self._maps[name] = axes, [bench.linear(rows, *sizes) for sizes in itertools.product(*axes)]

        match shape, module:
            case LinearShape(), _:
                linear("", shape.in_features, shape.out_features)
            case FeedForwardShape(), FeedForward():
                full = shape.hidden_features
                linear("fc1", shape.in_features, shape.halves * full)
                linear("fc2", full, shape.out_features)
                axes = [levels(full)]
                self._between = axes, [bench.activation(module, rows, width) for width in axes[0]]
            case AttentionShape(), Attention():
                width = shape.heads * shape.head_dim
                linear("qkv", shape.in_features, 3 * width)
                linear("proj", width, shape.out_features)
                axes = [sorted(head_counts(shape.heads)), levels(shape.head_dim), levels(shape.head_dim)]
                points = itertools.product(*axes)
                self._between = axes, [bench.attention(shape, batch, AttentionSize(*point)) for point in points]

    def costs(self) -> LayerCosts:
        maps = {name: self._grid(*asked) for name, asked in self._maps.items()}
        return LayerCosts(maps, self._grid(*self._between) if self._between else None)

    def _grid(self, axes: list[list[int]], keys: list[Key]) -> Grid:
        values = np.array([self._bench.milliseconds[key] for key in keys])
        return Grid(axes, values.reshape([len(axis) for axis in axes]))


class _Bench:
    """Operations to be timed, each once however many layers have it. Their inputs share one piece of memory."""

    def __init__(self, reference: Tensor) -> None:
        self.milliseconds: dict[Key, float] = {}
        self._reference = reference
        self._elements = 0
        self._memory = reference.new_empty(0)
        self._operations: dict[Key, Callable[[], object]] = {}

    def model(self, model: nn.Module, images: Tensor) -> Key:
        images = images.to(self._reference)
        return self._add(("model", *images.shape), lambda: model(images))

    def linear(self, rows: int, inputs: int, outputs: int) -> Key:
        def run() -> Tensor:
            return F.linear(self._take(rows, inputs), self._take(outputs, inputs), self._take(outputs))

        return self._add(("linear", rows, inputs, outputs), run, max(rows, outputs) * inputs, outputs)

    def activation(self, module: FeedForward, rows: int, width: int) -> Key:
        block = FeedForward(nn.Identity(), module.act, nn.Identity(), gated=module.gated)
        wide = width * (2 if module.gated else 1)
        key = ("activation", rows, wide, module.gated, repr(module.act))
        return self._add(key, lambda: block(self._take(1, rows, wide)), rows * wide)

    def attention(self, shape: AttentionShape, batch: int, size: AttentionSize) -> Key:
        """Of ``batch`` images, or as many times the windows of one. A position bias is what makes a mask."""
        sequences = max(1, batch * shape.tokens // shape.keys)
        block = Attention(
            nn.Identity(),
            nn.Identity(),
            heads=size.heads,
            qk_dim=size.qk_dim,
            v_dim=size.v_dim,
            scale=1 / sqrt(shape.head_dim),
        )
        wide = size.heads * (2 * size.qk_dim + size.v_dim)
        bias = (1, size.heads, shape.keys, shape.keys) if shape.per_head else None

        def run() -> Tensor:
            return block(self._take(sequences, shape.keys, wide), attn_mask=bias and self._take(*bias))  # type: ignore[no-any-return]

        key = ("attention", sequences, shape.keys, bias is not None, *size)
        return self._add(key, run, sequences * shape.keys * wide, prod(bias or (0,)))

    def _add(self, key: Key, run: Callable[[], object], *elements: int) -> Key:
        self._operations[key] = run
        self._elements = max(self._elements, 0, *elements)
        return key

    def _take(self, *shape: int) -> Tensor:
        return self._memory[: prod(shape)].view(shape)

    @torch.inference_mode()
    def run(self, on_fraction: Callable[[float], None]) -> None:
        """The median of rounds through all operations, so that what disturbs the machine for a while disturbs all."""
        self._memory = torch.randn(self._elements, device=self._reference.device).to(self._reference.dtype)
        repeats = {key: self._repeats(run) for key, run in self._operations.items()}
        times: dict[Key, list[float]] = {key: [] for key in self._operations}
        start = time.monotonic()
        for done in range(1, MOST_ROUNDS + 1):
            for key, run in self._operations.items():
                times[key].append(self._seconds(run, repeats[key]) / repeats[key])
            spent = time.monotonic() - start
            on_fraction(min(1.0, max(spent / SECONDS, done / MOST_ROUNDS)))
            if done >= LEAST_ROUNDS and spent * (done + 1) / done > SECONDS:
                break
        on_fraction(1.0)
        self._memory = self._reference.new_empty(0)
        self.milliseconds = {key: 1e3 * float(np.median(taken)) for key, taken in times.items()}

    def _repeats(self, run: Callable[[], object]) -> int:
        self._seconds(run, 1)  # warms up
        return max(1, round(SPAN / max(self._seconds(run, 1), SPAN / 100)))

    def _seconds(self, run: Callable[[], object], repeats: int) -> float:
        wait_for(self._reference.device)
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait_for(self._reference.device)
        return max(time.perf_counter() - start, 1e-9)


def levels(most: int) -> list[int]:
    """``most``, and below it 8 and its doubles."""
    doubles = itertools.takewhile(lambda size: size <= most / sqrt(2), (SMALLEST << step for step in range(32)))
    return [*doubles, most]
