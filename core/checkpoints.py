"""What a long stage leaves behind, so that the work can go on from there after a crash.

A checkpoint is a directory of safetensors and JSON files; nothing in it is pickled. Those of a compression hold what a
method has that trains (``core.deciding``), and once there is one the smaller model, and beside it what a later stage
adds.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_model, save_model
from torch import nn

from core.evidence import Spectrum
from core.reached import Reached
from core.recipe import AnyRecipe, Recipe
from core.report import LayerCheck, Search
from vitpress.artifact import apply_plan_
from vitpress.plan import Plan

VERSION = 1  # of what the files mean: a checkpoint of another version is not gone on from

WEIGHTS, DESCRIPTION = "compressed.safetensors", "compressed.json"


class Checkpoints(Protocol):
    """The last checkpoint of one compression. Where none are wanted, None stands in its place."""

    def load(self) -> Path | None:
        """The files of the one that was there at the start, to be read and left alone. None: there was none."""

    def save(self, directory: Path) -> None:
        """Replace the last one by the files of ``directory``: wholly, or not at all."""


class InDirectory:
    """Checkpoints as folders of a directory of this machine, which belongs to one compression."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._found = self._newest()

    def load(self) -> Path | None:
        return self._found

    def save(self, directory: Path) -> None:
        last = self._newest()
        number = int(last.name.removeprefix("checkpoint-")) + 1 if last else 1
        partial = self._directory / "partial"  # of a process that died, or none
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(directory, partial)
        partial.rename(self._directory / f"checkpoint-{number:09}")
        if last:
            shutil.rmtree(last)

    def _newest(self) -> Path | None:
        return max(self._directory.glob("checkpoint-*"), default=None)


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int
    recipe: Recipe
    plan: Plan
    search: Search | None = None
    self_check: tuple[LayerCheck, ...] = ()
    spectra: tuple[Spectrum, ...] | None = None


def with_compressed(checkpoints: Checkpoints, reached: Reached, *, found: bool) -> Checkpoints:
    """``checkpoints`` that hold the smaller model too, as it was ``reached``, from now on.

    ``found``: whether it came from the last of them, so that what a later stage left there is about this model.
    """
    both = _WithCompressed(checkpoints, reached, found)
    if not found:
        with TemporaryDirectory(prefix="vitpress-") as directory:
            both.save(Path(directory))
    return both


@dataclass(frozen=True)
class _WithCompressed:
    inner: Checkpoints
    reached: Reached
    found: bool

    def load(self) -> Path | None:
        return self.inner.load() if self.found else None

    def save(self, directory: Path) -> None:
        """Adds its files to ``directory``."""
        save_model(self.reached.model, str(directory / WEIGHTS))
        described = _Description(
            version=VERSION,
            recipe=self.reached.recipe,
            plan=self.reached.plan,
            search=self.reached.search,
            self_check=self.reached.self_check,
            spectra=self.reached.spectra,
        )
        (directory / DESCRIPTION).write_text(described.model_dump_json())
        self.inner.save(directory)


def compressed_before(checkpoints: Checkpoints | None, recipe: AnyRecipe, original: nn.Module) -> Reached | None:
    """What the last checkpoint says was reached, if it is of this recipe.

    ``original`` is what the smaller model is made from, and is left as it is.
    """
    directory = None if checkpoints is None else checkpoints.load()
    if directory is None or not (directory / DESCRIPTION).exists():
        return None
    described = json.loads((directory / DESCRIPTION).read_bytes())
    if described["version"] != VERSION or described["recipe"] != recipe.model_dump(mode="json"):
        return None
    known = _Description.model_validate(described)
    smaller = copy.deepcopy(original)
    apply_plan_(smaller, known.plan)
    load_model(smaller, str(directory / WEIGHTS))
    return Reached(recipe, smaller.eval(), known.plan, known.search, known.self_check, known.spectra)


@contextmanager
def divided(checkpoints: Checkpoints | None, count: int) -> Iterator[list[Checkpoints | None]]:
    """Checkpoints of ``count`` compressions of one job, kept together as the job's: the files of each bear its number.

    One compression alone has ``checkpoints`` as they are.
    """
    if checkpoints is None or count == 1:
        yield [checkpoints] * count
        return
    with TemporaryDirectory(prefix="vitpress-") as directory:
        whole = _Whole(checkpoints, Path(directory))
        yield [_Part(whole, f"{number}-") for number in range(count)]


class _Whole:
    """The last checkpoint of a job, and in ``current`` what the next one has of the parts that do not change."""

    def __init__(self, checkpoints: Checkpoints, scratch: Path) -> None:
        self.checkpoints, self.scratch = checkpoints, scratch
        self.found = checkpoints.load()
        self.current = scratch / "current"
        self.current.mkdir()
        for file in sorted(self.found.iterdir()) if self.found else ():
            shutil.copy(file, self.current)


class _Part:
    """One compression's share of a job's checkpoints: the files whose names begin with ``prefix``."""

    def __init__(self, whole: _Whole, prefix: str) -> None:
        self._whole, self._prefix = whole, prefix

    def load(self) -> Path | None:
        found = self._whole.found
        ours = sorted(found.glob(f"{self._prefix}*")) if found else []
        if not ours:
            return None
        mine = self._whole.scratch / f"found-{self._prefix}"
        mine.mkdir(exist_ok=True)
        for file in ours:
            shutil.copy(file, mine / file.name.removeprefix(self._prefix))
        return mine

    def save(self, directory: Path) -> None:
        current = self._whole.current
        for file in current.glob(f"{self._prefix}*"):
            file.unlink()
        for file in directory.iterdir():
            shutil.copy(file, current / f"{self._prefix}{file.name}")
        self._whole.checkpoints.save(current)
