"""The same submission by other means: curl, the command line, Python."""

import json
import pprint
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

KEY = "VITPRESS_API_KEY"
_OPTIONS = {
    "target_ratio": "--ratio",
    "target_macs": "--target-macs",
    "target_latency": "--target-latency",
    "latency_batch": "--latency-batch",
    "max_error_increase": "--max-error-increase",
    "rank_budget": "--rank-budget",
    "prune_budget": "--prune-budget",
    "calibration_images": "--calibration-images",
    "seed": "--seed",
    "method": "--method",
    "project": "--project",
    "name": "--name",
    "notes": "--notes",
    "priority": "--priority",
    "device": "--device",
    "device_tag": "--device-tag",
    "timeout_seconds": "--timeout",
}


def curl(server: str, body: Mapping[str, Any], *, with_key: bool) -> str:
    """``with_key``: False where the server takes none. It is the shell's variable ``KEY``, and so on no page."""
    lines = [f"curl {shlex.quote(f'{server}/v1/jobs')}"]
    if with_key:
        lines.append(f'-H "Authorization: Bearer ${KEY}"')
    lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
    return " \\\n  ".join(lines)


def command(server: str, body: Mapping[str, Any]) -> str:
    """``submit`` or, for several ratios, ``sweep``. What has no option of its own goes by ``--set``."""
    recipe = dict(body["recipe"])
    ratios = recipe.pop("target_ratios", None)
    words = ["vitpress", "submit" if ratios is None else "sweep", str(body.get("model", ""))]
    words += [str(body["dataset"])] if "dataset" in body else []
    if isinstance(ratios, list):
        words += ["--ratios", ",".join(f"{each:g}" for each in ratios)]
    options = [*_options(recipe), *_options({name: body[name] for name in body if name in _OPTIONS}), *_labels(body)]
    lines = [shlex.join(words), *(shlex.join(option) for option in options), shlex.join(["--url", server])]
    return " \\\n  ".join(lines)


def python(server: str, body: Mapping[str, Any]) -> str:
    """Members of the recipe are arguments like the others; the default method is left out."""
    recipe = {name: value for name, value in body["recipe"].items() if (name, value) != ("method", "fisher")}
    given = {name: value for name, value in body.items() if name not in {"model", "recipe"}} | recipe
    arguments = "".join(
        f"    {name}={pprint.pformat(value, width=88, sort_dicts=False)},\n"
        for name, value in given.items()
        if name.isidentifier()
    )
    return (
        "from vitpress import Client\n\n"
        f"job = Client({server!r}).compress(\n    {body.get('model', '')!r},\n{arguments})\n"
        "model = job.wait().load()"
    )


def _options(given: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in given.items():
        if (name, value) == ("method", "fisher"):
            continue
        if name in _OPTIONS:
            yield [_OPTIONS[name], f"{value:g}" if isinstance(value, float) else str(value)]
        elif name == "exports" and isinstance(value, list):
            yield from (["--export", str(each)] for each in value)
        elif name == "finetune" and isinstance(value, dict) and value.keys() == {"epochs"}:
            yield ["--finetune", f"{value['epochs']}epochs"]
        else:
            yield ["--set", f"{name}={json.dumps(value)}"]


def _labels(body: Mapping[str, Any]) -> Iterator[list[str]]:
    labels = body.get("labels")
    if isinstance(labels, dict):
        yield from (["--label", f"{name}={text}"] for name, text in labels.items())
