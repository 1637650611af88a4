"""A model by its catalogue name, with its weights: a sample from disk, anything else through timm and its hub."""

from dataclasses import dataclass
from pathlib import Path

import httpx2
import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from torch import nn

from core import catalog
from core.errors import HubUnreachableError, first_line
from vitpress import artifact
from vitpress.artifact import WEIGHTS, ModelConfig, Preprocessing

SAMPLE = "sample:"
HUB_TIMEOUT_SECONDS = 10  # for one probe: the hub's own client retries for minutes before it gives up


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, and the ``config`` that an artifact of it carries."""

    model: nn.Module
    config: ModelConfig


def load(name: str, samples_dir: Path, device: torch.device) -> Loaded:
    """The model on ``device``, in evaluation mode. Raises ``UnknownModelError``, ``HubUnreachableError``."""
    catalog.get(name)
    if name.startswith(SAMPLE):
        directory = samples_dir / name.removeprefix(SAMPLE)
        return Loaded(artifact.load(directory).to(device), artifact.read_config(directory))
    # A local safetensors file, because timm alone would fall back to pickled weights where the hub has no others.
    overlay = {"file": str(_weights_from_hub(name)), "source": "", "custom_load": False}
    model: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    return Loaded(model.eval().to(device), _config(name, model))


def device_named(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def _weights_from_hub(name: str) -> Path:
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise HubUnreachableError(f"{name!r} has no weights on the hub")
    file = Path(config.hf_hub_filename or WEIGHTS).with_suffix(".safetensors").name
    if isinstance(cached := try_to_load_from_cache(config.hf_hub_id, file), str):
        return Path(cached)
    try:
        httpx2.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_SECONDS)
        return Path(hf_hub_download(config.hf_hub_id, file))
    except EntryNotFoundError as error:
        raise HubUnreachableError(f"{config.hf_hub_id} has no {file}; other formats are not loaded") from error
    except (httpx2.HTTPError, HfHubHTTPError, OSError) as error:
        raise HubUnreachableError(f"the weights of {name!r} could not be fetched: {first_line(error)}") from error


def _config(name: str, model: nn.Module) -> ModelConfig:
    """Class names are ImageNet's synset ids, as its folders are called, where the model's classes are ImageNet's."""
    subset = infer_imagenet_subset(model)
    return ModelConfig(
        architecture=name,
        kwargs={"num_classes": model.num_classes},
        preprocessing=Preprocessing(**resolve_model_data_config(model)),
        class_names=tuple(ImageNetInfo(subset).label_names()) if subset else None,
    )
