"""The form of a submission: which field is which member of the request, and how its text becomes that.

The page's script reads the same table, from the fields' ``data-`` attributes. What cannot be read stays as it was
written: the API then says what is wrong with it.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from core.recipe import GOALS, AnyRecipe, Finetune, GoalName, recipe_adapter

Kind = Literal["text", "percent", "percents", "integer", "lines", "labels", "several", "switch", "json"]
Values = dict[str, list[str]]

REMOVED: tuple[GoalName, ...] = ("target_ratio", "target_macs", "target_latency")  # the slider's
HERE = "*"  # in a pointer: the goal
METHODS = {
    "fisher": "Fisher: low rank and pruning at one price, training-free",
    "vtp": "VTP: learned gates (Zhu et al. 2021)",
    "hybrid": "Hybrid: SVD, then gates (Kumar 2022)",
    "losparse": "LoSparse: low rank plus sparse (Li et al. 2023)",
    "activation-svd": "SVD in the metric of the inputs",
    "svd": "Plain SVD, data-free",
    "magnitude": "Magnitude pruning, data-free",
    "svd-magnitude": "SVD and magnitude, data-free",
}
GOAL_NAMES: dict[GoalName, str] = {
    "target_ratio": "Remove parameters",
    "target_macs": "Remove multiply-accumulates",
    "target_latency": "Remove latency, measured on the worker",
    "max_error_increase": "As small as the error allows",
    "target_ratios": "Several sizes, compared",
}


@dataclass(frozen=True)
class Field:
    """``goals``: those with which it counts; none: always."""

    name: str
    pointer: str
    kind: Kind = "text"
    goals: tuple[GoalName, ...] = ()


FIELDS = {
    field.name: field
    for field in (
        Field("model", "/model"),
        Field("dataset", "/dataset"),
        Field("method", "/recipe/method"),
        Field("amount", f"/recipe/{HERE}", "percent", REMOVED),
        Field("error", f"/recipe/{HERE}", "percent", ("max_error_increase",)),
        Field("ratios", f"/recipe/{HERE}", "percents", ("target_ratios",)),
        Field("rank_budget", "/recipe/rank_budget", "percent"),
        Field("prune_budget", "/recipe/prune_budget", "percent"),
        Field("calibration_images", "/recipe/calibration_images", "integer"),
        Field("seed", "/recipe/seed", "integer"),
        Field("finetune", "/recipe/finetune", "switch"),
        Field("epochs", "/recipe/finetune/epochs", "integer"),
        Field("exports", "/recipe/exports", "several"),
        Field("further", "/recipe", "json"),
        Field("name", "/name"),
        Field("labels", "/labels", "labels"),
        Field("notes", "/notes", "lines"),
        Field("project", "/project"),
        Field("priority", "/priority", "integer"),
        Field("device", "/device"),
        Field("device_tag", "/device_tag"),
        Field("timeout_seconds", "/timeout_seconds", "integer"),
    )
}
# Of a new form; a sample brings its dataset.
DEFAULTS: Values = {"goal": ["target_ratio"], "method": ["fisher"], "amount": ["50"], "ratios": ["30, 50, 70"]}


def body(values: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The body of ``POST /v1/jobs`` that the form stands for. What is empty is left to the server."""
    goal = next(iter(values.get("goal", ())), GOALS[0])
    made: dict[str, Any] = {"recipe": {}}
    for field in FIELDS.values():
        given = [text.strip() for text in values.get(field.name, ()) if text.strip()]
        if not given or (field.goals and goal not in field.goals):
            continue
        *path, last = field.pointer.replace(HERE, goal).split("/")[1:]
        parent = made if not path else made["recipe"].get(path[1]) if path[1:] else made["recipe"]
        value = _read(field.kind, given)
        if field.kind == "json":
            made["recipe"] |= value if isinstance(value, dict) else {"": value}
        elif parent is not None:
            parent[last] = value
    first = {name: made[name] for name in ("model", "dataset", "recipe") if name in made}
    return first | made


def values_of(request: Mapping[str, Any]) -> Values:
    """The form of a request, with what it has no field for as ``further``."""
    recipe = dict(request["recipe"])
    goal = next(name for name in GOALS if recipe.get(name) is not None)
    values: Values = {"goal": [goal]}
    known = {"version"}
    for field in FIELDS.values():
        if field.kind == "json" or (field.goals and goal not in field.goals):
            continue
        *path, last = field.pointer.replace(HERE, goal).split("/")[1:]
        parent = request if not path else (recipe.get(path[1]) or {}) if path[1:] else recipe
        value = parent.get(last)
        known |= {last} if path == ["recipe"] else set()
        if value is not None and value != () and value != {}:
            values[field.name] = _written(field.kind, value)
    further = _beyond(recipe, known)
    if further:
        values["further"] = [json.dumps(further, indent=1)]
    return values


def faults_by_field(faults: Sequence[Mapping[str, Any]], goal: str) -> dict[str, list[str]]:
    """What is wrong, by the name of the field that shows it: the one nearest to the pointer; "" is none."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        pointer = str(fault.get("pointer") or "")
        if pointer == "/recipe":  # what does not go together, a goal and its method above all
            found.setdefault("goal", []).append(_said(fault))
            continue
        near = [
            field
            for field in FIELDS.values()
            if (not field.goals or goal in field.goals)
            and f"{pointer}/".startswith(f"{field.pointer.replace(HERE, goal)}/")
        ]
        name = max(near, key=lambda field: len(field.pointer.replace(HERE, goal)), default=None)
        found.setdefault(name.name if name else "", []).append(_said(fault))
    return found


def _said(fault: Mapping[str, Any]) -> str:
    return str(fault["message"]).removeprefix("Value error, ")


def _read(kind: Kind, given: Sequence[str]) -> Any:
    text = given[0]
    with suppress(ValueError):
        match kind:
            case "percent":
                return float(text) / 100
            case "percents":
                return [float(each) / 100 for each in text.split(",") if each.strip()]
            case "integer":
                return int(text)
            case "json":
                return json.loads(text)
    match kind:
        case "several":
            return list(given)
        case "switch":
            return {}
        case "lines":
            return "\n".join(text.splitlines())
        case "labels":
            pairs = (line.partition(":") for line in text.splitlines() if line.strip())
            return {key.strip(): value.strip() for key, _, value in pairs}
    return text


def _written(kind: Kind, value: Any) -> list[str]:
    match kind:
        case "percent":
            return [f"{100 * value:g}"]
        case "percents":
            return [", ".join(f"{100 * each:g}" for each in value)]
        case "several":
            return list(value)
        case "switch":
            return ["on"]
        case "labels":
            return ["\n".join(f"{name}: {text}" for name, text in value.items())]
    return [str(value)]


def _beyond(recipe: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Members that are not the method's own defaults, and that no field has."""
    goal = next(name for name in GOALS if recipe.get(name) is not None)
    default: AnyRecipe = recipe_adapter.validate_python({"method": recipe["method"], goal: recipe[goal]})
    plain = default.model_dump(mode="json")
    beyond = {name: value for name, value in recipe.items() if name not in known and value != plain[name]}
    finetune = recipe.get("finetune")
    if finetune and finetune != Finetune(epochs=finetune["epochs"]).model_dump(mode="json"):
        beyond["finetune"] = {name: value for name, value in finetune.items() if value is not None}
    return beyond
