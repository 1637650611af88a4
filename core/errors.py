"""What can go wrong in a compression, as types with fields. Nobody outside raises these; ``api.errors`` maps them."""

from typing import Any


class VitpressError(Exception):
    """Base of every error that a user can cause or must hear of. ``code`` is its stable public name."""

    code = "internal"


class UnknownModelError(VitpressError):
    """No model of that name in the catalogue. ``near``: up to five names like it."""

    code = "unknown_model"

    def __init__(self, name: str, near: list[str]) -> None:
        hint = f"; near matches: {', '.join(near)}" if near else ""
        super().__init__(f"unknown model {name!r}{hint}")
        self.name, self.near = name, near


class UnknownDatasetError(VitpressError):
    """No dataset of that name. ``known``: the names there are."""

    code = "unknown_dataset"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"unknown dataset {name!r}; known: {', '.join(known) or 'none'}")
        self.name, self.known = name, known


class UnreachableTargetError(VitpressError):
    """The budgets and the architecture do not allow ``requested``; ``reachable`` is the largest fraction they do.

    ``goal``: the recipe's member that asks for it.
    """

    code = "unreachable_target"

    def __init__(self, requested: float, reachable: float, why: str, goal: str = "target_ratio") -> None:
        super().__init__(f"{goal} {requested:.4g} is unreachable: at most {reachable:.4f} can be removed ({why})")
        self.requested, self.reachable, self.why, self.goal = requested, reachable, why, goal


class NoDryRunError(VitpressError):
    """The recipe's ``goal`` cannot be planned for without the model and data, or gives more than one plan."""

    code = "no_dry_run"

    def __init__(self, goal: str, why: str) -> None:
        super().__init__(f"{goal} has no dry run: {why}")
        self.goal = goal


class NothingToCompressError(VitpressError):
    """The model has no layer that any method knows how to shrink."""

    code = "nothing_to_compress"


class HubUnreachableError(VitpressError):
    """Pretrained weights could not be fetched."""

    code = "hub_unreachable"


class DatasetError(VitpressError):
    """The dataset cannot serve this model: empty, unreadable, or with classes that the model does not have."""

    code = "bad_dataset"


class ArchiveError(VitpressError):
    """A file that should hold a dataset is refused. ``entry``: the one at fault, if it is one."""

    code = "bad_archive"

    def __init__(self, why: str, entry: str | None = None) -> None:
        where = "" if entry is None else f": {entry[:200]!r}"
        super().__init__(f"the archive is refused: {why}{where}")
        self.why, self.entry = why, entry


class CheckpointError(VitpressError):
    """A file that should be a safetensors checkpoint is refused."""

    code = "bad_checkpoint"

    def __init__(self, why: str) -> None:
        super().__init__(f"the checkpoint is refused: {why}")
        self.why = why


class ArchitectureError(VitpressError):
    """The architecture is not one of the catalogue's, or cannot be built with those arguments. ``near``: like names."""

    code = "bad_architecture"

    def __init__(self, message: str, near: list[str] | None = None) -> None:
        super().__init__(message)
        self.near = near or []

    @classmethod
    def unknown(cls, name: str, near: list[str]) -> "ArchitectureError":
        hint = f"; near matches: {', '.join(near)}" if near else ""
        return cls(f"no architecture {name[:200]!r} is supported{hint}", near)


class CheckpointMismatchError(VitpressError):
    """The checkpoint is not one of that architecture. ``differences``: by kind, ``total`` and the first ``names``."""

    code = "checkpoint_mismatch"

    def __init__(self, differences: dict[str, dict[str, Any]]) -> None:
        parts = [f"{each['total']} {kind} ({each['names'][0]}, …)" for kind, each in differences.items()]
        super().__init__(f"the checkpoint does not fit the architecture: {'; '.join(parts)}")
        self.differences = differences


class HubNotAllowedError(VitpressError):
    """The server's operator does not allow models of that name from the hub."""

    code = "hub_not_allowed"

    def __init__(self, hub_id: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{hub_id[:200]!r} is not allowed here; allowed: {', '.join(allowed) or 'none'}")
        self.hub_id = hub_id


class NumericalError(VitpressError):
    """The model gives non-finite outputs or gradients on the calibration data."""

    code = "numerical_failure"


def first_line(error: BaseException) -> str:
    """Of what an error says; its type's name, where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
