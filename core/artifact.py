"""From a compression to files, checked by reading them back."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from core.pipeline import Compressed
from core.report import Report
from vitpress import artifact
from vitpress.artifact import REPORT, WEIGHTS, ModelConfig


def export(compressed: Compressed, config: ModelConfig, directory: Path) -> Report:
    """Write ``model.safetensors``, ``config.json``, ``plan.json`` and ``report.json`` into ``directory``.

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
            "reload_max_abs_difference": _reload_difference(compressed, directory),
        }
    )
    (directory / REPORT).write_text(report.model_dump_json(indent=1) + "\n")
    return report


@torch.inference_mode()
def _reload_difference(compressed: Compressed, directory: Path) -> float:
    device = next(compressed.model.parameters()).device
    here = compressed.model(compressed.images.to(device)).cpu()
    again = artifact.load(directory)(compressed.images)
    return float((here - again).abs().max())
