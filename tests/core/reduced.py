"""Every architecture of the catalogue, as few and as narrow blocks as its constructor lets one have."""

import re
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from vitpress.artifact import ModelConfig, Preprocessing

CLASSES = 11


def config_of(architecture: str) -> ModelConfig:
    """What builds it with two blocks of four heads of eight dimensions, for an image of nine patches."""
    patch = int(found[1]) if (found := re.search(r"patch(\d+)", architecture)) else 16
    size = 3 * patch if patch < 32 else 64
    kwargs: dict[str, Any] = {"depth": 2, "embed_dim": 32, "num_heads": 4}
    match model_entrypoint(architecture).__module__.removeprefix("timm.models."):
        case "vision_transformer_hybrid":
            size = 64
            if "mci" in architecture:
                kwargs = {"depth": 1, "mlp_ratio": 0.25}  # its stem has the blocks' width
        case "swin_transformer" | "swin_transformer_v2":
            size = 64
            kwargs = {"depths": (2, 1, 1, 1), "embed_dim": 16, "num_heads": (2, 2, 4, 4), "window_size": 4}
        case "pit":
            size = 64
            kwargs = {"depth": (1, 1, 1), "base_dims": (8, 8, 8)}
        case "mobilevit":
            return _config(architecture, 64, {})  # its constructor reads sizes from a table
    return _config(architecture, size, kwargs | {"img_size": size})


def _config(architecture: str, size: int, kwargs: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        architecture=architecture,
        kwargs=kwargs | {"num_classes": CLASSES},
        preprocessing=Preprocessing(input_size=(3, size, size), mean=(0.5,) * 3, std=(0.5,) * 3),
    )


def build(config: ModelConfig) -> nn.Module:
    """With random weights that keep the stream's scale, and no bias, norm or layer scale at 0 or 1."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(config.architecture, **config.kwargs)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "gamma" in name:
            parameter.data = 0.5 + 0.1 * noise
        elif parameter.ndim < 2 or "freqs" in name or "logit_scale" in name:
            parameter.data += 0.1 * noise
        else:
            gain = 1.6 if parameter.ndim == 4 else 1.0  # convolutions are followed by an activation
            parameter.data = gain * noise / parameter[0].numel() ** 0.5
    return model.eval()


def structure(model: nn.Module) -> str:
    """The same for models that differ in nothing but the values of their weights."""
    return f"{model}\n{ {name: tuple(each.shape) for name, each in model.state_dict().items()} }"


def images(config: ModelConfig, count: int, seed: int = 2) -> Tensor:
    return torch.randn(count, *config.preprocessing.input_size, generator=torch.Generator().manual_seed(seed))
