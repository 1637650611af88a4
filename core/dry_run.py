"""What a recipe would give if nothing told the layers apart, from their shapes alone. Torch-free."""

from dataclasses import replace
from functools import lru_cache

from core import gated_plan, losparse_plan
from core.allocate import Target, allocate, check_some, target_of
from core.curves import Curve, Gain, Option, curve, parameters_gained
from core.errors import NoDryRunError
from core.forms import Forms, forms_of
from core.pools import POOLS, Amounts, divide, refuse_beyond, room
from core.prior import prior
from core.recipe import AnyRecipe, HybridRecipe, LoSparseRecipe, VtpRecipe, singles
from core.shapes import LayerShape, ModelShape
from vitpress.plan import Dense, Plan

SLACK = 0.005  # of the parameters: what budgets may leave between the steps that are possible and the target


def dry_run(shape: ModelShape, recipe: AnyRecipe) -> Plan:
    """The plan that ``recipe`` would give with no data to tell the layers apart.

    Raises as ``core.allocate.allocate`` does, and ``NoDryRunError`` for a goal that shapes do not tell.
    """
    gain = target_of(shape, recipe).gain
    match recipe:
        case VtpRecipe():
            return gated(shape, recipe, gated_plan.uniform(shape))
        case HybridRecipe():
            scores = gated_plan.uniform(shape)
            prunable = {layer.path for layer in shape.layers if layer.pool == "prune"}
            return with_gates(shape, recipe, low_ranks(shape, recipe), {path: scores[path] for path in prunable})
        case LoSparseRecipe():
            maps = [each for layer in shape.layers for each in losparse_plan.maps_of(layer)]
            within = losparse_room(shape, recipe)
            ranks = losparse_plan.ranks(maps, divide(shape, recipe, within), recipe.low_rank_share)
            scores_of_maps = [[(output + 0.5) / each.outputs for output in range(each.outputs)] for each in maps]
            target = losparse_target(shape, recipe)
            left = losparse_plan.neurons_left(maps, losparse_plan.drop(maps, ranks, scores_of_maps, target, within))
            return checked(losparse_plan.plan(shape, maps, ranks, left), shape, recipe)
        case _:
            curves = [_curve(layer, forms_of(recipe), gain) for layer in shape.layers]
            return allocate(shape, curves, recipe, measured=False)


def check(shape: ModelShape, recipe: AnyRecipe) -> None:
    """Refuse what no data could make possible. Raises ``UnreachableTargetError``, ``NothingToCompressError``."""
    *_, largest = singles(recipe)
    try:
        dry_run(shape, largest)
    except NoDryRunError:
        check_some([_curve(layer, forms_of(recipe)) for layer in shape.layers])


def _curve(layer: LayerShape, forms: Forms, gain: Gain = parameters_gained) -> Curve:
    """By ``prior``. It is most of a dry run's work, and one for all blocks that are alike."""
    return replace(_curve_anywhere(layer.model_copy(update={"path": ""}), forms, gain), shape=layer)


@lru_cache(maxsize=128)
def _curve_anywhere(layer: LayerShape, forms: Forms, gain: Gain) -> Curve:
    return curve(layer, prior(layer, forms), gain)


# ---------------------------------------------------------------- gates


def gated(shape: ModelShape, recipe: VtpRecipe, scores: dict[str, gated_plan.Scores]) -> Plan:
    """The plan by learned gates' ``scores``. Raises as ``dry_run`` does."""
    within = room(shape, recipe, gated_plan.most)
    dense = plan_of_dense(shape)
    return checked(_cut(shape, dense, recipe, scores, within), shape, recipe)


def with_gates(shape: ModelShape, recipe: HybridRecipe, start: Plan, scores: dict[str, gated_plan.Scores]) -> Plan:
    """``start``, with the rest of what is to go taken from the layers that have ``scores``."""
    return checked(_cut(shape, start, recipe, scores, hybrid_room(shape, recipe)), shape, recipe)


def low_ranks(shape: ModelShape, recipe: HybridRecipe) -> Plan:
    """The part of a hybrid plan that low rank has. Raises as ``dry_run`` does."""
    amount = divide(shape, recipe, hybrid_room(shape, recipe))["rank"] - 1  # lest rounding ask for more than there is
    if amount <= 0:
        return plan_of_dense(shape)
    target = Target("target_ratio", amount / shape.parameters, shape.parameters, parameters_gained)
    return allocate(shape, _low_rank_curves(shape, recipe), recipe, target=target, measured=False)


def hybrid_room(shape: ModelShape, recipe: HybridRecipe) -> Amounts:
    """Parameters that each pool can give within the budgets: attention by rank, feed-forward blocks by gates."""
    lowest = {each.shape.path: each.options[-1].removed for each in _low_rank_curves(shape, recipe)}

    def most(layer: LayerShape) -> float:
        return gated_plan.most(layer) if layer.pool == "prune" else lowest[layer.path]

    return room(shape, recipe, most)


def _low_rank_curves(shape: ModelShape, recipe: HybridRecipe) -> list[Curve]:
    return [
        _curve(layer, forms_of(recipe))
        if layer.pool == "rank"
        else Curve(layer, (Option(layer.full, 0, 0.0, 0.0),))  # gates decide of it later
        for layer in shape.layers
    ]


def plan_of_dense(shape: ModelShape) -> Plan:
    """Of the model with every layer as ``vitpress.layers`` writes it, at its full size."""
    layers = tuple(
        Dense(
            path=layer.path,
            parameters_before=layer.parameters,
            parameters_after=layer.dense_parameters,
            predicted_loss=None,
        )
        for layer in shape.layers
    )
    return Plan(
        parameters_before=shape.parameters,
        parameters_after=shape.parameters + sum(each.parameters_after - each.parameters_before for each in layers),
        macs_before=shape.macs,
        macs_after=shape.macs,
        layers=layers,
    )


def _cut(
    shape: ModelShape, start: Plan, recipe: AnyRecipe, scores: dict[str, gated_plan.Scores], within: Amounts
) -> Plan:
    """``start``, with the layers that have ``scores`` at the sizes that one threshold leaves them."""
    others = sum(each.parameters_before - each.parameters_after for each in start.layers if each.path not in scores)
    target = (recipe.target_ratio or 0.0) * shape.parameters - others
    kept = gated_plan.threshold(shape, scores, target, within)
    layers, macs = [], start.macs_after
    for layer, planned in zip(shape.layers, start.layers, strict=True):
        if layer.path in kept:
            planned, given = gated_plan.layer_of(layer, kept[layer.path])  # type: ignore[arg-type]
            macs -= given
        layers.append(planned)
    parameters = shape.parameters + sum(each.parameters_after - each.parameters_before for each in layers)
    return start.model_copy(update={"parameters_after": parameters, "macs_after": macs, "layers": tuple(layers)})


# ---------------------------------------------------------------- low rank and sparse


def losparse_room(shape: ModelShape, recipe: LoSparseRecipe) -> Amounts:
    """Parameters that each pool can give within the budgets, by ``losparse``'s forms."""
    return room(shape, recipe, losparse_plan.most)


def losparse_target(shape: ModelShape, recipe: LoSparseRecipe) -> float:
    """Weights to remove: what is asked for, and the biases that our form of the layers adds."""
    return (recipe.target_ratio or 0.0) * shape.parameters + plan_of_dense(shape).parameters_after - shape.parameters


def checked(plan: Plan, shape: ModelShape, recipe: AnyRecipe) -> Plan:
    """``plan``, unless it stays behind its target: then ``UnreachableTargetError``, with what it reaches."""
    if plan.ratio < (recipe.target_ratio or 0.0) - SLACK:
        layers = {each.path: each for each in plan.layers}
        given = {
            pool: float(
                sum(
                    each.parameters_before - each.parameters_after
                    for layer in shape.layers
                    if layer.pool == pool
                    for path, each in layers.items()
                    if path == layer.path or path.startswith(f"{layer.path}.")
                )
            )
            for pool in POOLS
        }
        refuse_beyond(shape, recipe, given)
    return plan
