"""What an owner brings: models and datasets, sent, checked by a worker, and named ``own:…``. Parts of a ``Client``."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar
from urllib.parse import quote

from vitpress import uploads
from vitpress.errors import RejectedError
from vitpress.reading import member, pages, read
from vitpress.transport import Transport
from vitpress.uploads import OnSent, unheard
from vitpress.values import DatasetInfo, ModelInfo

OWN = "own:"
POLL_SECONDS = 0.5

_Checked = TypeVar("_Checked", ModelInfo, DatasetInfo)


class Models:
    """The catalogue's models and your own."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def list(self, search: str | None = None, *, page: int = 50) -> Iterator[ModelInfo]:
        """Those of the catalogue, and your own. ``search``: a part of the name. ``page``: how many at once."""
        return pages(self._http, ModelInfo, "/v1/models", {"search": search}, page)

    def get(self, name: str) -> ModelInfo:
        """One of the catalogue, or your own with the report of its check. Raises ``NotFoundError``."""
        return read(ModelInfo, self._http.get(_path("models", name)))

    def upload(
        self,
        file: str | Path,
        name: str,
        *,
        architecture: str,
        kwargs: Mapping[str, Any] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        on_sent: OnSent = unheard,
    ) -> ModelInfo:
        """Bring a safetensors checkpoint of a timm ``architecture``; its check is not waited for.

        ``kwargs``: the constructor's, ``num_classes`` and the like; ``preprocessing``: where it is not timm's.
        """
        body = {
            "name": name,
            "upload": uploads.send(self._http, Path(file), on_sent),
            "architecture": architecture,
            "kwargs": dict(kwargs or {}),
            "preprocessing": dict(preprocessing or {}),
            "class_names": None if class_names is None else list(class_names),
        }
        return read(ModelInfo, self._http.post("/v1/models", body))

    def from_hub(self, hub_id: str, name: str) -> ModelInfo:
        """Bring a model of the hub, ``owner/name``; its check is not waited for."""
        return read(ModelInfo, self._http.post("/v1/models", {"name": name, "hub_id": hub_id}))

    def wait(self, name: str) -> ModelInfo:
        """Once it is checked. Raises ``RejectedError``, whose ``details`` name the keys that differ."""
        return _checked(lambda: self.get(_own(name)))

    def delete(self, name: str) -> None:
        """Raises ``ConflictError`` while jobs need it."""
        self._http.delete(_path("models", _own(name)))


class Datasets:
    """The server's datasets and your own."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def list(self) -> tuple[DatasetInfo, ...]:
        """Those that the server has, and your own."""
        return tuple(read(DatasetInfo, item) for item in member(self._http.get("/v1/datasets"), "items"))

    def get(self, name: str) -> DatasetInfo:
        """With the report of its check, if it is your own."""
        return read(DatasetInfo, self._http.get(_path("datasets", name)))

    def upload(self, source: str | Path, name: str, *, on_sent: OnSent = unheard) -> DatasetInfo:
        """Bring a zip, a tar, a Parquet file, or a directory of class folders, which is packed first.

        Its check is not waited for.
        """
        with _packed(Path(source)) as file:
            body = {"name": name, "upload": uploads.send(self._http, file, on_sent)}
        return read(DatasetInfo, self._http.post("/v1/datasets", body))

    def from_directory(self, directory: str, name: str) -> DatasetInfo:
        """Name a directory on the workers' disks, where the server allows it; its check is not waited for."""
        return read(DatasetInfo, self._http.post("/v1/datasets", {"name": name, "directory": directory}))

    def wait(self, name: str) -> DatasetInfo:
        """Once it is checked. Raises ``RejectedError``."""
        return _checked(lambda: self.get(_own(name)))

    def delete(self, name: str) -> None:
        """Raises ``ConflictError`` while jobs need it."""
        self._http.delete(_path("datasets", _own(name)))


def _checked(look: Callable[[], _Checked]) -> _Checked:
    while (found := look()).state == "checking":
        time.sleep(POLL_SECONDS)
    if found.state == "rejected":
        error = found.error
        details = found.differences if isinstance(found, ModelInfo) else None
        raise RejectedError(
            found.name, error.message if error else "no reason given", error.code if error else "", details
        )
    return found


@contextmanager
def _packed(source: Path) -> Iterator[Path]:
    """The file itself, or a tar of the directory, gone afterwards. Images are compressed as they are."""
    if not source.is_dir():
        yield source
        return
    with NamedTemporaryFile(prefix="vitpress-", suffix=".tar") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for path in sorted(path for path in source.rglob("*") if path.is_file()):
                tar.add(path, path.relative_to(source).as_posix(), recursive=False)
        file.flush()
        yield Path(file.name)


def _own(name: str) -> str:
    return name if name.startswith(OWN) else f"{OWN}{name}"


def _path(collection: str, name: str) -> str:
    return f"/v1/{collection}/{quote(name, safe=':/')}"
