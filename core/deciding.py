"""Training on labelled calibration images, in whose course it is decided what goes: common to gates and to neurons.

The loss is the cross-entropy with the labels, as in the publications, or in part the divergence from the original's
answers. AdamW warms up and falls as a half cosine. The model is in evaluation mode, without dropout. A training that
goes on from a checkpoint ends as an undisturbed one does.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.checkpoints import VERSION, Checkpoints
from core.course import Course, Standing
from core.dry_run import plan_of_dense
from core.errors import DatasetError, NumericalError
from core.progress import OnProgress, Progress, Stage
from core.recipe import CHECKPOINT_SECONDS, Finetune, HybridRecipe, LoSparseRecipe, VtpRecipe
from core.shapes import ModelShape
from core.training import LARGEST_GRADIENT, SMOOTHING, forgetting
from vitpress.artifact import apply_plan_

TENSORS, STANDING = "deciding.safetensors", "deciding.json"  # of a checkpoint

TrainedRecipe = VtpRecipe | HybridRecipe | LoSparseRecipe


@dataclass(frozen=True)
class Deciders:
    """What is trained beside the weights, and what looks on.

    ``penalty`` is added to the loss. ``after_backward`` sees the gradients, ``after_step`` the new weights and which
    fraction of the training is over. ``state`` is what they know beside ``parameters``, and ``become_`` has them know
    it again.
    """

    parameters: Sequence[nn.Parameter] = ()
    learning_rate: float = 0.0
    penalty: Callable[[], Tensor] | None = None
    after_backward: Callable[[], None] = lambda: None
    after_step: Callable[[float], None] = lambda _: None
    state: Callable[[], dict[str, Tensor]] = dict
    become_: Callable[[Mapping[str, Tensor]], None] = lambda _: None


def train_(
    model: nn.Module,
    teacher: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    recipe: TrainedRecipe,
    deciders: Deciders,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Train all of ``model`` that requires a gradient, and the ``deciders``, in place.

    ``batches``: images ``(batch, channels, height, width)`` and labels ``(batch,)``. ``teacher`` is left as it is.
    Raises ``DatasetError`` for labels that the model cannot give, ``NumericalError`` where the loss is not finite.
    """
    device = next(model.parameters()).device
    images, labels = ([each for part in parts for each in part] for parts in zip(*batches, strict=True))
    settings = Finetune(epochs=recipe.epochs, learning_rate=recipe.learning_rate, batch_size=recipe.batch_size)
    course, at = Course(settings, len(images), recipe.seed), Standing()
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    weights = list(named.values())
    groups = [
        {"params": weights, "peak": recipe.learning_rate},
        {"params": list(deciders.parameters), "peak": deciders.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)  # it would shrink all gates alike, and S apart from U and V
    keeper = Keeper(recipe, named, deciders, optimizer, at)
    if checkpoints:
        keeper.read_(checkpoints.load())
    every = recipe.finetune.checkpoint_seconds if recipe.finetune else CHECKPOINT_SECONDS
    since, saved = time.monotonic() - at.seconds, time.monotonic()
    while not course.is_over(at):
        chosen = course.batch(at.step).tolist()
        batch = torch.stack([images[index] for index in chosen]).to(device)
        wanted = torch.stack([labels[index] for index in chosen]).to(device)
        loss = _loss(forgetting(model), teacher, batch, wanted, recipe.distillation)
        if deciders.penalty is not None:
            loss = loss + deciders.penalty()
        if not math.isfinite(shown := float(loss.detach())):
            raise NumericalError(f"the loss is not finite in step {at.step + 1} of the training on calibration images")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        deciders.after_backward()
        nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * course.learning_rate(at) / recipe.learning_rate
        optimizer.step()
        at.step += 1
        at.loss = shown if at.loss is None else SMOOTHING * at.loss + (1 - SMOOTHING) * shown
        at.seconds = time.monotonic() - since
        deciders.after_step(course.done(at))
        if checkpoints and (course.is_over(at) or time.monotonic() - saved >= every):
            keeper.save(checkpoints)
            saved = time.monotonic()
            since = saved - at.seconds
        on_progress(Progress(Stage.COMPRESS, course.done(at), at.loss, course.eta_seconds(at)))
    forgetting(model)


@dataclass(frozen=True)
class Keeper:
    """All that a training is at one moment, ``at`` that, for a checkpoint. ``weights``: what is trained, by name."""

    recipe: TrainedRecipe
    weights: Mapping[str, Tensor]
    deciders: Deciders
    optimizer: torch.optim.Optimizer
    at: Standing

    def save(self, checkpoints: Checkpoints) -> None:
        kinds: dict[str, Mapping[str, Tensor]] = {"trained": self._trained, "state": self.deciders.state()}
        for name, each in self._trained.items():
            for kind, moment in self.optimizer.state.get(each, {}).items():
                kinds[kind] = {**kinds.get(kind, {}), name: moment}
        tensors = {f"{kind}:{name}": each.detach() for kind, some in kinds.items() for name, each in some.items()}
        described = {"version": VERSION, "recipe": self.recipe.model_dump(mode="json"), "at": asdict(self.at)}
        with TemporaryDirectory(prefix="vitpress-") as directory:
            save_file({key: each.contiguous() for key, each in tensors.items()}, Path(directory) / TENSORS)
            (Path(directory) / STANDING).write_text(json.dumps(described))
            checkpoints.save(Path(directory))

    @torch.no_grad()
    def read_(self, directory: Path | None) -> None:
        """Become what ``save`` saved, if that is of this version and recipe; else nothing happens."""
        if directory is None or not (directory / STANDING).exists():
            return
        described = json.loads((directory / STANDING).read_bytes())
        if described["version"] != VERSION or described["recipe"] != self.recipe.model_dump(mode="json"):
            return
        for name, value in described["at"].items():
            setattr(self.at, name, value)
        kinds: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(directory / TENSORS).items():
            kind, _, name = key.partition(":")
            kinds.setdefault(kind, {})[name] = tensor
        self.deciders.become_(kinds.pop("state", {}))
        for name, tensor in kinds.pop("trained").items():
            self._trained[name].copy_(tensor)
        for kind, moments in kinds.items():
            for name, tensor in moments.items():
                each = self._trained[name]
                # The scalar is AdamW's count of steps, which it keeps on the CPU.
                self.optimizer.state[each][kind] = tensor.to(each.device) if tensor.ndim else tensor

    @property
    def _trained(self) -> dict[str, Tensor]:
        return {**self.weights, **{f"decider {index}": each for index, each in enumerate(self.deciders.parameters)}}


def _loss(
    model: nn.Module,
    teacher: nn.Module,
    images: Float[Tensor, "images channels height width"],
    labels: Int[Tensor, " images"],
    distillation: float,
) -> Float[Tensor, ""]:
    with torch.autocast("cuda", torch.bfloat16, enabled=images.device.type == "cuda"):
        logits = model(images).float()
    if labels.min() < 0 or labels.max() >= logits.shape[-1]:
        raise DatasetError(f"labels must be in [0, {logits.shape[-1]}), got {int(labels.min())} to {int(labels.max())}")
    loss = F.cross_entropy(logits, labels)
    if distillation == 0:
        return loss
    with torch.no_grad():
        answers = teacher(images).float().log_softmax(-1)
    divergence = F.kl_div(logits.log_softmax(-1), answers, reduction="batchmean", log_target=True)
    return (1 - distillation) * loss + distillation * divergence


def dense_copy(model: nn.Module, shape: ModelShape) -> nn.Module:
    """``model`` with its layers as ``vitpress.layers`` writes them, at their full size; all of it to be trained."""
    same = copy.deepcopy(model)
    apply_plan_(same, plan_of_dense(shape))
    return same.requires_grad_()
