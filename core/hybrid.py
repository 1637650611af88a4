"""Low rank for attention, learned gates for feed-forward blocks (Kumar 2022, arXiv 2203.13444).

The maps of attention blocks become their truncated SVD. Then the whole is trained with the gates of ``core.vtp`` on the
feed-forward blocks alone, at the lower rate that this leaves to them.

What differs from the publication: of how it divides 50 % between both kinds of block we only know that feed-forward
blocks give less than by gates alone; here both pools give the same fraction, unless the budgets say otherwise. Ranks
are about the same fraction everywhere. See ``core.vtp`` for the gates' own differences.
"""

from torch import nn

from core.baselines import plain_svd
from core.checkpoints import Checkpoints
from core.data import Prepared
from core.dry_run import low_ranks, with_gates
from core.progress import OnProgress
from core.rebuild import rebuild
from core.recipe import HybridRecipe
from core.shapes import ModelShape
from core.vtp import Gates, cut, learn_
from vitpress.plan import Plan


def hybrid(
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    recipe: HybridRecipe,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> tuple[nn.Module, Plan]:
    """The smaller model and its plan. ``model`` is left as it is. Raises as ``core.deciding.train_`` does."""
    start = low_ranks(shape, recipe)
    trained = rebuild(model, shape, start, plain_svd(model, shape, recipe)).requires_grad_()
    gates = Gates(trained, [layer for layer in shape.layers if layer.pool == "prune"])
    learn_(gates, trained, model, data, recipe, on_progress, checkpoints)
    plan = with_gates(shape, recipe, start, gates.scores())
    return cut(trained, gates, plan.layers), plan
