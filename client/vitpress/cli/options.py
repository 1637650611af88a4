"""The options that several commands share, and what their text means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from vitpress.client import DEFAULT_URL

Url = Annotated[
    str | None, typer.Option("--url", envvar="VITPRESS_URL", help=f"The server; {DEFAULT_URL} if not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
Method = Annotated[
    str,
    typer.Option(
        help="fisher, or one of the literature's: vtp, hybrid, losparse, activation-svd, svd, magnitude, svd-magnitude."
    ),
]
Ratio = Annotated[float | None, typer.Option(help="Fraction of all parameters to remove.")]
TargetMacs = Annotated[float | None, typer.Option(help="Or: fraction of the MACs to remove.")]
Model = Annotated[str, typer.Argument(help="A name from `vitpress models`.")]
Dataset = Annotated[
    str | None, typer.Argument(help="A name from `vitpress datasets`; a sample has one of its own.", show_default=False)
]
CalibrationImages = Annotated[int | None, typer.Option(help="Images to calibrate on.")]
Seed = Annotated[int | None, typer.Option(help="Of the choice of images and of the sampled labels.")]
Finetune = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help="Distil from the original for 20epochs, 500steps or 600s.")
]
Export = Annotated[
    list[str] | None,
    typer.Option(metavar="FORMAT", help="Also as onnx, onnx-int8 or torch-export. May be repeated."),
]
Name = Annotated[str | None, typer.Option(help="What you call it.")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")]
Notes = Annotated[str | None, typer.Option(help="Free text.")]
Timeout = Annotated[int | None, typer.Option(help="Seconds of running time, queueing not counted.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A member of the recipe, as JSON: those of a method. Repeatable."),
]
Project = Annotated[str | None, typer.Option(help="One of your projects; `default` if not given.")]
Priority = Annotated[int | None, typer.Option(min=-10, max=10, help="Among your own jobs; larger first.")]
Device = Annotated[str | None, typer.Option(help="`gpu`: on a GPU worker alone; `any` if not given.")]
Tag = Annotated[str | None, typer.Option("--device-tag", help="On a worker with that tag alone.")]
Watch = Annotated[bool, typer.Option(help="Stay and show the progress.")]
Download = Annotated[Path | None, typer.Option(metavar="DIR", help="Watch, then download the result.")]
OfSweep = Annotated[float | None, typer.Option(help="Which of a sweep's models.")]
RankBudget = Annotated[float | None, typer.Option(help="Largest fraction of the attention that low rank may remove.")]
PruneBudget = Annotated[
    float | None, typer.Option(help="Largest fraction of the feed-forward part that pruning may remove.")
]


def pair(text: str, option: str = "--label") -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"expected KEY=VALUE, got {text!r}", param_hint=option)
    return key, value


def ratios(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"expected 0.3,0.5,0.75, got {text!r}", param_hint="--ratios") from error


def amount(text: str) -> dict[str, int | float]:
    """A member of the recipe's ``finetune``."""
    match = re.fullmatch(r"(\d+) ?(epoch|step)s?|(\d+(?:\.\d+)?) ?s(?:econds?)?", text)
    if match is None:
        raise typer.BadParameter(f"expected 20epochs, 500steps or 600s, got {text!r}", param_hint="--finetune")
    count, unit, seconds = match.groups()
    return {"seconds": float(seconds)} if seconds else {f"{unit}s": int(count)}


def members(texts: list[str] | None) -> dict[str, Any]:
    """Of a recipe, by ``--set``: a value is JSON, or else the text itself. The server knows what there is to set."""
    found: dict[str, Any] = {}
    for text in texts or []:
        name, value = pair(text, "--set")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
