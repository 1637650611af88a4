"""What the command line prints, and how it ends."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from vitpress.errors import (
    ApiError,
    IntegrityError,
    RatioError,
    ServerUnreachableError,
    VitpressClientError,
)

FAILED, REFUSED, UNREACHABLE, CORRUPT, DETACHED = 1, 2, 3, 4, 130

console = Console(markup=False, highlight=False)
stderr = Console(markup=False, highlight=False, stderr=True)


def show(table: Table | str) -> None:
    """In a terminal within its width, elsewhere as wide as it likes: what reads it wants whole names."""
    (console if console.is_terminal else Console(markup=False, highlight=False, width=1000)).print(table)


def say(line: str) -> None:
    console.print(line, soft_wrap=True)


def answer(value: Any, words: Table | str, as_json: bool) -> None:
    """What a command found: ``value`` for a program, or ``words`` for whoever reads it."""
    if as_json:
        print_json(value)
    elif isinstance(words, str):
        say(words)
    else:
        show(words)


def print_json(value: Any) -> None:
    """One line: an object, or an array."""
    print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"no JSON for {type(value).__name__}")


def fail(error: VitpressClientError) -> NoReturn:
    match error:
        case ServerUnreachableError():
            end(str(error), UNREACHABLE)
        case IntegrityError():
            end(str(error), CORRUPT)
        case RatioError():
            end(str(error), REFUSED)
        case ApiError() if error.errors:
            end("\n  ".join([error.problem.title, *map(str, error.errors)]), REFUSED)
        case ApiError():
            end(f"{error} ({error.code})", REFUSED if error.status < 500 else FAILED)
        case _:
            end(str(error), FAILED)


def end(line: str, code: int) -> NoReturn:
    stderr.print(f"vitpress: {line}", soft_wrap=True)
    sys.exit(code)
