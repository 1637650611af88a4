"""The vocabulary of the rows: what a job, its events and what its owner brought can be. All layers above use it."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is. The functions named here, of ``store``, are its only writers. A final state is left by ``retry``
    alone."""

    QUEUED = "queued"
    """Waits for a worker. Entered by ``add``, and again by ``lose`` and ``sweep_expired`` (the attempt died, and
    another is allowed), by ``release`` (the worker shuts down) and by ``retry`` (from failed or cancelled). Left by
    ``claim`` to running, and by ``request_cancel`` straight to cancelled."""

    RUNNING = "running"
    """One attempt holds the lease. Entered by ``claim`` alone. Left by that attempt: ``finish`` to succeeded, ``fail``
    to failed, ``release`` to queued, ``lose`` to queued (at the attempt limit: failed); by ``request_cancel`` to
    cancelling; by ``sweep_expired``, when the lease has lapsed, to queued (at the attempt limit: failed)."""

    CANCELLING = "cancelling"
    """Its user wants it stopped, and its attempt may still compute. Entered by ``request_cancel`` from running alone.
    Left to cancelled alone: by the attempt (``end_cancelled``, ``lose``, ``release``), or by ``sweep_expired``."""

    SUCCEEDED = "succeeded"
    """Plan, report and artifacts are there. Entered by ``finish`` from running; of a check, by ``finish_check``.
    Final."""

    FAILED = "failed"
    """``error`` says why. Entered by ``fail``, and by ``lose`` and ``sweep_expired`` at the attempt limit. Final, but
    for ``retry`` to queued."""

    CANCELLED = "cancelled"
    """Entered by ``request_cancel`` from queued, and from cancelling as said there. Final, but for ``retry`` to
    queued."""

    @property
    def is_final(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


ENDED = tuple(state for state in JobState if state.is_final)
UNFINISHED = tuple(state for state in JobState if not state.is_final)


class EventKind(StrEnum):
    """`state`, `stage`: it has changed. `progress`: within a stage, a few times a second at most."""

    STATE = "state"
    STAGE = "stage"
    PROGRESS = "progress"


class JobKind(StrEnum):
    """What an attempt does. The checks prepare what their owner brought; they are jobs, so that nothing of them is lost
    either, and no list of jobs shows them."""

    COMPRESS = "compress"
    CHECK_MODEL = "check_model"
    CHECK_DATASET = "check_dataset"


class CheckState(StrEnum):
    """Of a model or dataset that an owner brought. Written with the outcome of its check, in one transaction."""

    CHECKING = "checking"
    READY = "ready"
    REJECTED = "rejected"


class Queue(StrEnum):
    """What a job needs. A GPU worker serves both queues, a CPU worker only its own."""

    CPU = "cpu"
    GPU = "gpu"
