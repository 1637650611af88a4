"""Uploads, as they go over the wire beside the protocol's own headers."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_UPLOAD: dict[str, Any] = {
    "id": "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57",
    "length": 88_214_992,
    "offset": 16_777_216,
    "metadata": {"filename": "model.safetensors"},
    "created_at": "2026-11-24T09:30:00Z",
    "expires_at": "2026-11-26T09:30:00Z",
}


class Upload(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_UPLOAD]})

    id: str
    length: Annotated[int, Field(description="Bytes, as announced")]
    offset: Annotated[int, Field(description="Bytes that are there: it is complete when these are all")]
    metadata: Annotated[dict[str, str], Field(description="Decoded")]
    created_at: datetime
    expires_at: Annotated[datetime, Field(description="Deleted then, unless it is used or more bytes come")]
