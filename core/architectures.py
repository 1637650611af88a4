"""How an owner's model may be built: a plain timm architecture of the catalogue, and arguments that only size it.

Torch-free. timm itself would also take ``hf-hub:…`` and ``local-dir:…`` for names, and classes and paths for arguments.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core import catalog
from core.errors import ArchitectureError

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

Size = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=16384)]
Count = Annotated[int, Field(ge=1, le=256)]
SizeOrPair = Size | tuple[Size, Size]
PerStage = Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]


class Arguments(BaseModel):
    """Arguments of the architecture's constructor that may be given; which of them it has is the architecture's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_classes: Annotated[int | None, Field(ge=1, le=100_000)] = None
    in_chans: Annotated[int | None, Field(ge=1, le=64)] = None
    img_size: SizeOrPair | None = None
    patch_size: SizeOrPair | None = None
    window_size: SizeOrPair | None = None
    embed_dim: Width | None = None
    depth: Count | None = None
    depths: PerStage | None = None
    num_heads: Count | PerStage | None = None
    head_dim: Width | None = None
    mlp_ratio: Annotated[float | None, Field(gt=0, le=32)] = None
    init_values: Annotated[float | None, Field(ge=0, le=100)] = None
    reg_tokens: Annotated[int | None, Field(ge=0, le=256)] = None
    num_reg_tokens: Annotated[int | None, Field(ge=0, le=256)] = None
    global_pool: Literal["avg", "avgmax", "max", "token", "map"] | None = None
    pos_embed: Literal["", "none", "learn"] | None = None
    act_layer: Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "silu"] | None = None
    class_token: bool | None = None
    no_embed_class: bool | None = None
    pool_include_prefix: bool | None = None
    qkv_bias: bool | None = None
    qkv_fused: bool | None = None
    proj_bias: bool | None = None
    qk_norm: bool | None = None
    scale_attn_norm: bool | None = None
    scale_mlp_norm: bool | None = None
    scale_mlp: bool | None = None
    scale_attn_inner: bool | None = None
    swiglu_mlp: bool | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    fc_norm: bool | None = None
    use_fc_norm: bool | None = None
    use_abs_pos_emb: bool | None = None
    use_rot_pos_emb: bool | None = None
    use_rel_pos_bias: bool | None = None
    use_shared_rel_pos_bias: bool | None = None
    use_post_norm: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that were given, for ``timm.create_model``; of JSON's types."""
        return self.model_dump(mode="json", exclude_unset=True)


@cache
def names() -> frozenset[str]:
    """The architectures of the catalogue."""
    return frozenset(catalog.architectures())


def check(name: str) -> None:
    """Raises ``ArchitectureError`` with near matches."""
    if name not in names():
        raise ArchitectureError.unknown(name, catalog.resembling(name, sorted(names())))


def is_hub_id(text: str) -> bool:
    """``owner/name``, and no way out of it."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text


def is_allowed(hub_id: str, patterns: Iterable[str]) -> bool:
    """Whether one of the operator's ``patterns``, ``timm/*`` say, allows it. Their stars do not cross a slash."""
    parts = hub_id.split("/")
    return is_hub_id(hub_id) and any(
        len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
        for wanted in (pattern.split("/") for pattern in patterns)
    )


class InputChanges(BaseModel):
    """What differs from timm's preprocessing for the architecture. ``mean`` and ``std`` have one value a channel."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mean: Annotated[tuple[float, ...] | None, Field(min_length=1, max_length=64)] = None
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...] | None, Field(min_length=1, max_length=64)] = None
    input_size: tuple[Annotated[int, Field(ge=1, le=64)], Size, Size] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic"] | None = None
    crop_pct: Annotated[float | None, Field(gt=0, le=1)] = None
    crop_mode: Literal["center", "squash", "border"] | None = None
