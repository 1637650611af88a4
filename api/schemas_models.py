"""Models, as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from api.schemas import JobError, NextCursor, RequestBody, ResponseBody, Text
from api.schemas_identity import Slug
from core.architectures import Arguments, InputChanges
from core.shapes import ModelShape
from store.states import CheckState

_ID = "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57"
_UPLOADED: dict[str, Any] = {
    "name": "shoes",
    "upload": _ID,
    "architecture": "vit_small_patch16_224",
    "kwargs": {"num_classes": 10, "img_size": 224},
    "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
_OF_THE_HUB: dict[str, Any] = {"name": "small", "hub_id": "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"}
_MODEL: dict[str, Any] = {
    "name": "own:shoes",
    "architecture": "vit_small_patch16_224",
    "parameters": 21_669_514,
    "macs": 4_607_954_304,
    "input_size": [3, 224, 224],
    "num_classes": 10,
    "state": "ready",
    "error": None,
    "created_at": "2026-11-24T09:30:00Z",
    "size": 86_693_784,
    "hub_id": None,
}


class ModelRequest(RequestBody):
    """Either an upload, with what it is, or a model of the hub, which says so itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [_UPLOADED, _OF_THE_HUB]})

    name: Annotated[Slug, Field(description="Jobs name it `own:<name>`")]
    upload: Annotated[
        str | None, Field(max_length=36, description="The id of a complete upload: a safetensors file")
    ] = None
    hub_id: Annotated[
        str | None, Field(max_length=200, description="`owner/name` of a model in timm's format, as the server allows")
    ] = None
    architecture: Annotated[
        str | None, Field(max_length=200, description="timm's name of it, without a tag; one of the catalogue's")
    ] = None
    kwargs: Annotated[Arguments, Field(description="For the architecture's constructor")] = Arguments()
    preprocessing: Annotated[InputChanges, Field(description="Where it is not timm's")] = InputChanges()
    class_names: Annotated[tuple[Text, ...] | None, Field(max_length=100_000)] = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.upload is None) == (self.hub_id is None):
            raise ValueError("needs either an upload or a hub_id")
        if (self.upload is None) == (self.architecture is not None) or (self.hub_id and self.kwargs.given()):
            raise ValueError("an upload needs its architecture, and a hub_id brings it and its kwargs along")
        return self


class Model(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL]})

    name: str
    architecture: Annotated[str, Field(description="Empty of the hub's before the check")]
    parameters: Annotated[int | None, Field(description="Null before the check")]
    macs: Annotated[int | None, Field(description="Multiply-accumulates of one image; null before the check")]
    input_size: Annotated[
        tuple[int, int, int] | None, Field(description="Channels, height, width; null before the check")
    ]
    num_classes: Annotated[int | None, Field(description="Null before the check")]
    state: Annotated[CheckState, Field(description="Jobs compress what is `ready`")]
    error: Annotated[JobError | None, Field(description="Why it was rejected")]
    created_at: Annotated[datetime | None, Field(description="Null of the catalogue's")]
    size: Annotated[int | None, Field(description="Bytes stored; null of the catalogue's")]
    hub_id: str | None


class Difference(ResponseBody):
    total: int
    names: Annotated[list[str], Field(description="The first ones; with what was expected and what is there")]


class ModelDetail(Model):
    shape: Annotated[
        ModelShape | None, Field(description="What can be compressed in it, layer by layer; null before the check")
    ]
    differences: Annotated[
        dict[str, Difference],
        Field(description="By kind (missing, unexpected, shape, dtype): where a rejected checkpoint does not fit"),
    ]
    converted: Annotated[list[str], Field(description="Dtypes of the checkpoint that became the model's own")]


class ModelPage(ResponseBody):
    items: list[Model]
    next_cursor: NextCursor
