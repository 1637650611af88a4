"""What can go wrong in a compression, as types with fields. Nobody outside raises these; ``api.errors`` maps them."""


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


class NumericalError(VitpressError):
    """The model gives non-finite outputs or gradients on the calibration data."""

    code = "numerical_failure"
