"""The OpenAPI document: committed, complete, and true to what routes answer."""

from typing import Any

import pytest

from api.app import create_app
from api.openapi import FILE, document, rendered
from store.settings import Settings

METHODS = {"get", "post", "put", "patch", "delete"}
VERBS = {
    "cancel", "clone", "compare", "create", "delete", "drain", "get", "list", "resume", "retry", "revoke", "rotate",
    "update", "watch",
}  # fmt: skip
APP = create_app(Settings())
OPERATIONS = [
    pytest.param(operation, id=operation["operationId"])
    for path in document(APP)["paths"].values()
    for method, operation in path.items()
    if method in METHODS
]


class TestDocument:
    def test_is_the_committed_one(self) -> None:
        assert FILE.read_text() == rendered(APP), "run: python -m api.openapi"

    def test_has_no_error_but_problems(self) -> None:
        assert "HTTPValidationError" not in document(APP)["components"]["schemas"]

    def test_refers_to_nothing_that_is_missing(self) -> None:
        schemas = document(APP)["components"]["schemas"]

        assert set(_references(document(APP))) <= {f"#/components/schemas/{name}" for name in schemas}

    def test_shows_an_example_of_every_request_body(self) -> None:
        schemas = document(APP)["components"]["schemas"]

        bodies = [
            each["content"]["application/json"]["schema"]
            for path in document(APP)["paths"].values()
            for method, operation in path.items()
            if method in METHODS and "application/json" in (each := operation.get("requestBody", {})).get("content", {})
        ]
        assert len(bodies) > 5
        for name in (reference.rpartition("/")[2] for body in bodies for reference in _references(body)):
            assert schemas[name].get("examples"), name


@pytest.mark.parametrize("operation", OPERATIONS)
class TestOperation:
    def test_is_summarised_and_named_by_a_verb_and_its_resource(self, operation: dict[str, Any]) -> None:
        verb, _, resource = operation["operationId"].partition("_")

        assert verb in VERBS
        assert resource
        assert operation["summary"]

    def test_declares_every_error_as_a_problem(self, operation: dict[str, Any]) -> None:
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}

        assert "500" in errors
        for answer in errors.values():
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            }

    def test_declares_what_it_answers(self, operation: dict[str, Any]) -> None:
        results = {status: answer for status, answer in operation["responses"].items() if status < "300"}

        assert results
        assert all(("content" in answer) == (status != "204") for status, answer in results.items())


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [each for value in node.values() for each in _references(value)]
    if isinstance(node, list):
        return [each for value in node for each in _references(value)]
    return []
