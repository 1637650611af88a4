"""The trace of an attempt: a span of it, continuing the submission's trace, and in that one for each stage.

A runner runs one attempt, so there is one stage at a time to remember.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from core.progress import Stage
from store import traces
from store.values import Claim

_stage = ExitStack()


@contextmanager
def attempt(claim: Claim) -> Iterator[None]:
    """Its span, which ends with its last stage's."""
    attributes: dict[str, str | int] = {"vitpress.job_id": claim.job_id, "vitpress.attempt": claim.attempt}
    with traces.span("attempt", kind="CONSUMER", parent=claim.traceparent, attributes=attributes):
        try:
            yield
        finally:
            _stage.close()


def enter(stage: Stage) -> None:
    """The stage before it has ended."""
    _stage.close()
    _stage.enter_context(traces.span(stage))
