"""Answers of the API, read as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vitpress.errors import UnexpectedAnswerError
from vitpress.transport import Transport

_Value = TypeVar("_Value", bound=BaseModel)


def read(kind: type[_Value], answer: Any) -> _Value:
    """``answer`` as a value. Raises ``UnexpectedAnswerError`` with the first field that is not as it should be."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UnexpectedAnswerError(
            f"the server's {kind.__name__} has an unexpected {where}: {first['msg']}"
        ) from error


def member(answer: Any, name: str) -> Any:
    """The member ``name`` of ``answer``. Raises ``UnexpectedAnswerError`` if it has none."""
    if not isinstance(answer, dict) or name not in answer:
        raise UnexpectedAnswerError(f"expected an answer with {name!r}, got {str(answer)[:80]!r}")
    return answer[name]


def pages(
    http: Transport, kind: type[_Value], path: str, query: Mapping[str, str | int | list[str] | None], page: int = 100
) -> Iterator[_Value]:
    """The items of a list, fetched ``page`` at a time as the iteration goes on."""
    params: dict[str, str | int | list[str]] = {key: value for key, value in query.items() if value is not None} | {
        "limit": page
    }
    while True:
        answer = http.get(path, params)
        yield from (read(kind, item) for item in member(answer, "items"))
        if not (cursor := answer.get("next_cursor")):
            return
        params["cursor"] = cursor
