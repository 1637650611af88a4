"""The artifact format: a directory of ``model.safetensors``, ``config.json`` and, when compressed, ``plan.json``.

Nothing in it is ever pickled. torch and timm are imported by the functions that need them alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vitpress.plan import Plan

if TYPE_CHECKING:
    from torch import nn

_FILES = ("checkpoint_path", "cache_dir")  # arguments of create_model that read files

WEIGHTS, CONFIG, PLAN = "model.safetensors", "config.json", "plan.json"
REPORT, EVIDENCE = "report.json", "evidence.json"


class ArtifactError(Exception):
    """The directory is not a readable artifact, or its parts contradict each other."""


class Preprocessing(BaseModel):
    """How an image becomes the model's input: timm's data config. ``input_size``: channels, height, width."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"


class ModelConfig(BaseModel):
    """What ``timm.create_model`` needs, and what its inputs and outputs mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    architecture: Annotated[str, Field(pattern=r"^\w+(\.\w+)?$")]  # no "hf-hub:" or "local-dir:", which fetch and read
    kwargs: dict[str, Any] = {}
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None = None

    @field_validator("kwargs")
    @classmethod
    def _build_only(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        if forbidden := {name for name in kwargs if name.startswith("pretrained") or name in _FILES}:
            raise ValueError(f"may say how the model is built, not where weights come from: {', '.join(forbidden)}")
        return kwargs


def save(model: nn.Module, config: ModelConfig, plan: Plan | None, directory: Path) -> None:
    """Write ``model`` as an artifact into ``directory``, which is made if need be."""
    from safetensors.torch import save_model

    directory.mkdir(parents=True, exist_ok=True)
    save_model(model, str(directory / WEIGHTS))
    (directory / CONFIG).write_text(config.model_dump_json(indent=1) + "\n")
    if plan is not None:
        (directory / PLAN).write_text(plan.model_dump_json(indent=1) + "\n")


def read_config(directory: Path) -> ModelConfig:
    """What ``config.json`` says. Raises ``ArtifactError`` if it is not there."""
    return ModelConfig.model_validate_json(_read(directory / CONFIG))


def load(directory: str | Path) -> nn.Module:
    """The model of an artifact directory, on the CPU, in evaluation mode.

    Raises ``ArtifactError`` if a file is missing or malformed, or if the weights do not fit the plan; ``ImportError``
    if torch, timm or safetensors is not installed.
    """
    try:
        import timm
        from safetensors import SafetensorError
        from safetensors.torch import load_model
    except ImportError as error:
        raise ImportError("loading a model needs the extra: pip install 'vitpress[torch]'") from error

    directory = Path(directory)
    try:
        config = read_config(directory)
        model: nn.Module = timm.create_model(config.architecture, pretrained=False, **config.kwargs)
        if (directory / PLAN).exists():
            apply_plan_(model, Plan.model_validate_json(_read(directory / PLAN)))
        load_model(model, str(directory / WEIGHTS))
    except (SafetensorError, OSError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"{directory}: {error}") from error
    return model.eval()


def apply_plan_(model: nn.Module, plan: Plan) -> None:
    """Give ``model``'s layers the shapes that ``plan`` says; the new weights are uninitialised.

    Raises ``AttributeError`` or ``ValueError`` for layers that the model does not have.
    """
    from vitpress.shaping import shaped

    for layer in plan.layers:
        model.set_submodule(layer.path, shaped(model.get_submodule(layer.path), layer, plan.version))


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ArtifactError(f"{path.name} not found in {path.parent}")
    return path.read_bytes()
