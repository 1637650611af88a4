"""From a compression to files, checked by reading them back."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from core import exports
from core.pipeline import Compressed
from core.progress import OnProgress, ignore, shares
from core.recipe import AnyRecipe
from core.report import Report, SweepReport, folder, sweep_report
from vitpress import artifact
from vitpress.artifact import EVIDENCE, REPORT, WEIGHTS, ModelConfig


def export(compressed: Compressed, config: ModelConfig, directory: Path, on_progress: OnProgress = ignore) -> Report:
    """Write ``model.safetensors``, ``config.json``, ``plan.json`` and ``report.json`` into ``directory``.

    Beside them, ``evidence.json``, for the report's pictures, and the files of the recipe's ``exports``.

    The report that comes back, and is written, has what only files tell: their sizes, and the largest absolute
    difference between the logits of the compressed model here and those of the same model loaded from ``directory``.
    """
    artifact.save(compressed.model, config, compressed.plan, directory)
    with TemporaryDirectory() as scratch:
        artifact.save(compressed.original, config, None, Path(scratch))
        bytes_before = (Path(scratch) / WEIGHTS).stat().st_size
    report = compressed.report.model_copy(
        update={
            "before": compressed.report.before.model_copy(update={"file_bytes": bytes_before}),
            "after": compressed.report.after.model_copy(update={"file_bytes": (directory / WEIGHTS).stat().st_size}),
            "exports": exports.write(
                compressed.model,
                compressed.report.recipe.exports,
                directory,
                images=compressed.images,
                evaluation=compressed.evaluation,
                on_progress=on_progress,
            ),
            "reload_max_abs_difference": _reload_difference(compressed, directory),
        }
    )
    (directory / REPORT).write_text(report.model_dump_json(indent=1) + "\n")
    (directory / EVIDENCE).write_text(compressed.evidence.model_dump_json() + "\n")
    return report


def export_sweep(
    models: Sequence[Compressed],
    recipe: AnyRecipe,
    config: ModelConfig,
    directory: Path,
    on_progress: OnProgress = ignore,
) -> SweepReport:
    """Write each of a sweep's ``models`` into a folder of its own in ``directory``, and beside them ``report.json``."""
    reports = []
    for each, part in zip(models, shares(on_progress, len(models)), strict=True):
        reports.append(export(each, config, directory / folder(each.report.constraint.requested), part))
    report = sweep_report(recipe, reports)
    (directory / REPORT).write_text(report.model_dump_json(indent=1) + "\n")
    return report


@torch.inference_mode()
def _reload_difference(compressed: Compressed, directory: Path) -> float:
    device = next(compressed.model.parameters()).device
    here = compressed.model(compressed.images.to(device)).cpu()
    again = artifact.load(directory)(compressed.images)
    return float((here - again).abs().max())
