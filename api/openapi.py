"""The OpenAPI document. ``python -m api.openapi`` writes it to ``openapi.json``, where a test compares it."""

import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.schemas import JobEvent, Problem, ProjectEvent, ProjectOpened

FILE = Path(__file__).resolve().parents[1] / "openapi.json"


def install(app: FastAPI) -> None:
    """Has FastAPI serve ``document`` as ``/openapi.json``."""
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def document(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, and the schemas that only media types it does not know refer to: problems and events."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _, extra = models_json_schema(
            [(each, "serialization") for each in (Problem, JobEvent, ProjectEvent, ProjectOpened)],
            ref_template="#/components/schemas/{model}",
        )
        app.openapi_schema["components"]["schemas"] |= extra["$defs"]
    return app.openapi_schema


def rendered(app: FastAPI) -> str:
    """As it is committed: sorted and indented, so that a comparison of two shows what has changed."""
    return json.dumps(document(app), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    from api.app import create_app

    FILE.write_text(rendered(create_app()))
