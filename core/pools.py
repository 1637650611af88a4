"""How much each pool of layers gives, for methods that divide what is to go before they choose within. Torch-free."""

from collections.abc import Callable, Mapping
from typing import get_args

from core.errors import NothingToCompressError, UnreachableTargetError
from core.recipe import AnyRecipe
from core.shapes import LayerShape, ModelShape, Pool

POOLS: tuple[Pool, ...] = get_args(Pool)
HALVINGS = 60  # of an interval: more than a float64 has bits

Amounts = dict[Pool, float]  # parameters


def room(shape: ModelShape, recipe: AnyRecipe, most: Callable[[LayerShape], float]) -> Amounts:
    """What each pool can give within ``recipe``'s budgets, if a layer can give up to ``most`` of its parameters.

    Raises ``NothingToCompressError``, or ``UnreachableTargetError`` where that is less than ``recipe.target_ratio``.
    """
    if not any(most(layer) > 0 for layer in shape.layers):
        raise NothingToCompressError("the model has no layer that this method can compress")
    found: Amounts = {}
    for pool in POOLS:
        members = [layer for layer in shape.layers if layer.pool == pool]
        budget = budgets(recipe)[pool]
        allowed = (1.0 if budget is None else budget) * sum(layer.parameters for layer in members)
        found[pool] = min(allowed, sum(max(0.0, most(layer)) for layer in members))
    refuse_beyond(shape, recipe, found)
    return found


def refuse_beyond(shape: ModelShape, recipe: AnyRecipe, amounts: Mapping[Pool, float]) -> None:
    """Raise ``UnreachableTargetError`` where the pools' ``amounts`` are less than what ``recipe`` asks for."""
    reachable = sum(amounts.values()) / shape.parameters
    if reachable < wanted(recipe):
        why = ", ".join(f"{pool} pool: {amount / shape.parameters:.4f}" for pool, amount in amounts.items())
        raise UnreachableTargetError(wanted(recipe), reachable, f"of the parameters, {why}")


def wanted(recipe: AnyRecipe) -> float:
    """The fraction of the parameters to remove. Methods that plan by pools have no other goal."""
    assert recipe.target_ratio is not None
    return recipe.target_ratio


def budgets(recipe: AnyRecipe) -> dict[Pool, float | None]:
    """The fraction of each pool's parameters that may go; None: all of it."""
    return {"rank": recipe.rank_budget, "prune": recipe.prune_budget}


def divide(shape: ModelShape, recipe: AnyRecipe, within: Mapping[Pool, float]) -> Amounts:
    """Parameters for each pool to give, so that together it is what ``recipe`` asks for.

    The same fraction of both, or fractions in proportion to the budgets where both are given; what a pool cannot give
    ``within`` its room, the other does.
    """
    known = budgets(recipe)
    both = None not in known.values()
    weights = {
        pool: ((known[pool] or 0.0) if both else 1.0)
        * sum(each.parameters for each in shape.layers if each.pool == pool)
        for pool in POOLS
    }
    target = wanted(recipe) * shape.parameters

    def at(level: float) -> Amounts:
        return {pool: min(within[pool], level * weights[pool]) for pool in POOLS}

    low, high = 0.0, shape.parameters / min((each for each in weights.values() if each > 0), default=1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle).values()) < target else (low, middle)
    return at(high)
