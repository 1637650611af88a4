"""vitpress: client of the compression queue, and the loader of what it makes.

Importing it is cheap: the client's HTTP stack is imported with ``Client``, torch with the first ``load``.
"""

from typing import TYPE_CHECKING, Any

from vitpress.artifact import ArtifactError, load
from vitpress.plan import Plan

if TYPE_CHECKING:
    from vitpress.client import Client as Client
    from vitpress.handle import JobHandle as JobHandle

__all__ = ["ArtifactError", "Client", "JobHandle", "Plan", "load"]


def __getattr__(name: str) -> Any:
    if name not in {"Client", "JobHandle"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vitpress import client, handle

    return getattr(client if name == "Client" else handle, name)
