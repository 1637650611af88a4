from typing import Any, get_args

import pytest
from pydantic import BaseModel

from core import report as server
from vitpress import report as client


def members(model: type[BaseModel]) -> dict[str, Any]:
    """A model's field names, each with those of the models inside it; a recipe is the server's own affair."""
    return {
        name: [members(each) for each in _models(field.annotation)] if name != "recipe" else []
        for name, field in model.model_fields.items()
        if name != "version"
    }


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


class TestTheClientsReading:
    @pytest.mark.parametrize("name", ["Report", "SweepReport"])
    def test_has_every_member_of_the_servers_report(self, name: str) -> None:
        assert members(getattr(client, name)) == members(getattr(server, name))
