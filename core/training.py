"""The weights of a training, and what follows from them: a moving average, the best there was, AdamW's moments.

All of it can be written to a directory and become again what it was, to the last bit.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.course import Standing
from core.recipe import Finetune

LARGEST_GRADIENT = 1.0  # norm over all weights, above which it is scaled down: a damaged model's first steps are wild
SMOOTHING = 0.95  # of the loss that is shown
KEEPS_ACTIVATIONS = "no gradient checkpointing: this architecture has none, so its activations were kept"
WEIGHTS, STANDING = "training.safetensors", "training.json"

Weights = dict[str, Tensor]


@dataclass
class Training:
    """A training at one moment. ``live``, ``average`` and ``best`` are the trained weights by name.

    What requires a gradient is trained, and nothing else changes: no buffer, of whatever type, since both models are
    in evaluation mode throughout.
    """

    model: nn.Module  # with the live weights
    average_model: nn.Module  # with their moving average
    optimizer: torch.optim.AdamW
    decay: float
    live: Weights
    average: Weights
    warnings: tuple[str, ...] = ()  # what the settings ask for and the model cannot do
    best: Weights | None = None
    at: Standing = field(default_factory=Standing)

    @classmethod
    def of(cls, student: nn.Module, settings: Finetune) -> "Training":
        """At its start. ``student`` is left as it is."""
        model, average_model = copy.deepcopy(student).eval(), copy.deepcopy(student).eval()
        warnings = () if not settings.gradient_checkpointing or _save_memory_(model) else (KEEPS_ACTIVATIONS,)
        live = {name: each for name, each in model.named_parameters() if each.requires_grad}
        average = {name: each.data for name, each in average_model.named_parameters() if name in live}
        decayed, spared = _by_decay(model, live)
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": spared, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        return cls(model, average_model, optimizer, settings.ema_decay, dict(live), average, warnings)

    def step_(self, loss: Callable[[nn.Module], Tensor], learning_rate: float) -> bool:
        """One update of the weights. False, and none, where the loss is not finite."""
        value = loss(forgetting(self.model))
        if not math.isfinite(shown := float(value.detach())):
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(self.live.values(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.at.step += 1
        self.at.loss = shown if self.at.loss is None else SMOOTHING * self.at.loss + (1 - SMOOTHING) * shown
        self._average_()
        return True

    @torch.no_grad()
    def _average_(self) -> None:
        # The average of a short training would else be mostly of what came before it.
        decay = min(self.decay, self.at.step / (self.at.step + 9))
        for name, average in self.average.items():
            average.lerp_(self.live[name], 1 - decay)

    def look_(self, loss: float | None, patience: int | None) -> None:
        """Hear the averaged weights' loss on the held-out images, None if not finite. The best are kept; others cost
        patience."""
        if loss is not None and (self.at.loss_best is None or loss < self.at.loss_best):
            self.at.loss_best, self.at.looks_in_vain = loss, 0
            self.best = {name: each.clone() for name, each in self.average.items()}
            return
        self.at.looks_in_vain += 1
        self.at.stopped_early = patience is not None and self.at.looks_in_vain >= patience

    @property
    def has_helped(self) -> bool:
        before, best = self.at.loss_before, self.at.loss_best
        return best is not None and (before is None or best < before)

    @torch.no_grad()
    def best_model(self) -> nn.Module:
        """The averaged model with the best weights. There must have been a finite look."""
        assert self.best is not None
        for name, average in self.average.items():
            average.copy_(self.best[name])
        return forgetting(self.average_model)

    def write(self, directory: Path) -> None:
        kinds = {"live": self.live, "average": self.average, "best": self.best or {}} | self._moments()
        tensors = {f"{kind}:{name}": each.detach() for kind, some in kinds.items() for name, each in some.items()}
        save_file({key: each.contiguous() for key, each in tensors.items()}, directory / WEIGHTS)
        (directory / STANDING).write_text(json.dumps(asdict(self.at)))

    @torch.no_grad()
    def read_(self, directory: Path) -> None:
        """Become what ``write`` wrote there; a directory without any is that of the start."""
        if not (directory / STANDING).exists():
            return
        self.at = Standing(**json.loads((directory / STANDING).read_bytes()))
        kinds: dict[str, Weights] = {}
        for key, tensor in load_file(directory / WEIGHTS).items():
            kind, _, name = key.partition(":")
            kinds.setdefault(kind, {})[name] = tensor
        for name, weight in self.live.items():
            weight.copy_(kinds["live"][name])
            self.average[name].copy_(kinds["average"][name])
        if "best" in kinds:
            self.best = {name: each.to(self.live[name].device) for name, each in kinds["best"].items()}
        for kind in kinds.keys() - {"live", "average", "best"}:
            for name, tensor in kinds[kind].items():
                weight = self.live[name]
                # The scalar is AdamW's count of steps, which it keeps on the CPU.
                self.optimizer.state[weight][kind] = tensor.to(weight.device) if tensor.ndim else tensor

    def _moments(self) -> dict[str, Weights]:
        kinds: dict[str, Weights] = {}
        for name, weight in self.live.items():
            for kind, tensor in self.optimizer.state.get(weight, {}).items():
                kinds.setdefault(kind, {})[name] = tensor
        return kinds


def forgetting(model: nn.Module) -> nn.Module:
    """``model`` in evaluation mode, without what some cache there and drop in training mode alone: attention biases."""
    return model.train().eval()


def _by_decay(model: nn.Module, live: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices and kernels, and what is spared: biases, norms, scales, tokens, and what the model itself names."""
    named = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()  # type: ignore[operator]
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for name, each in live.items():
        (decayed if each.ndim in {2, 4} and name not in named else spared).append(each)
    return decayed, spared


def _save_memory_(model: nn.Module) -> bool:
    """By gradient checkpointing. False, and nothing, for a model that has none, or says so by an assertion.

    LeViT and its like would fail in the backward pass: the attention biases that they cache in evaluation mode are
    computed in the forward pass, and not again.
    """
    if any(hasattr(module, "attention_bias_cache") for module in model.modules()):
        return False
    try:
        model.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        return False
    return True
