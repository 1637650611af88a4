"""A model of the hub in timm's format, as a checkpoint like any other: safetensors alone, and an allowed architecture.

What timm's own loader would do of itself is done here by hand: it takes pickles where there is nothing else, and
arguments of any kind from the repository's ``config.json``.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import timm
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError
from pydantic import ValidationError
from safetensors.torch import save_file

from core import architectures
from core.architectures import Arguments, InputChanges
from core.checkpoint_file import read_header
from core.errors import CheckpointError, HubNotAllowedError, HubUnreachableError, first_line
from core.own_models import differences, on_meta
from vitpress.artifact import CONFIG, WEIGHTS

MAX_CONFIG_BYTES = 8 << 20  # with the names of 22,000 classes it has less than one
PROBE_SECONDS = 10  # the hub's own client retries for minutes before it gives up
ENDPOINT = constants.ENDPOINT  # HF_ENDPOINT, where that is set


@dataclass(frozen=True)
class FromHub:
    """``weights``: a file with just the tensors that the architecture wants."""

    weights: Path
    architecture: str
    arguments: Arguments
    changes: InputChanges
    class_names: tuple[str, ...] | None


def fetch(hub_id: str, directory: Path, *, token: str | None, allowed: tuple[str, ...], max_bytes: int) -> FromHub:
    """Into ``directory``. Raises ``HubNotAllowedError``, ``HubUnreachableError``, ``CheckpointError``,
    ``ArchitectureError``."""
    if not architectures.is_allowed(hub_id, allowed):
        raise HubNotAllowedError(hub_id, allowed)
    config = _config(_download(hub_id, CONFIG, directory, token, MAX_CONFIG_BYTES))
    weights = _download(hub_id, WEIGHTS, directory, token, max_bytes)
    arguments = _arguments(config)
    blank = on_meta(config["architecture"], arguments)
    if differences(read_header(weights), blank):
        weights = _translated(weights, config["architecture"], arguments, directory)
    names = config.get("label_names")
    return FromHub(
        weights=weights,
        architecture=config["architecture"],
        arguments=arguments,
        changes=_changes(config),
        class_names=tuple(map(str, names)) if isinstance(names, list) and len(names) == blank.num_classes else None,
    )


def _download(hub_id: str, name: str, directory: Path, token: str | None, max_bytes: int) -> Path:
    given = token or False
    try:
        httpx2.head(ENDPOINT, timeout=PROBE_SECONDS)
        size = get_hf_file_metadata(hf_hub_url(hub_id, name, endpoint=ENDPOINT), token=given).size
        if size is None or size > max_bytes:
            raise CheckpointError(f"{name} of {hub_id} has {size} bytes; at most {max_bytes} may be")
        return Path(hf_hub_download(hub_id, name, local_dir=directory, token=given, endpoint=ENDPOINT))
    except EntryNotFoundError as error:
        raise CheckpointError(f"{hub_id} has no {name}; other formats are not loaded") from error
    except RepositoryNotFoundError as error:
        raise HubUnreachableError(f"the hub has no {hub_id}, or not for this server") from error
    except (httpx2.HTTPError, HfHubHTTPError, OSError) as error:
        raise HubUnreachableError(f"{name} of {hub_id} could not be fetched: {first_line(error)}") from error


def _config(file: Path) -> dict[str, Any]:
    """timm's: the architecture, and beside it what its older versions had in the same place."""
    try:
        found = json.loads(file.read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("architecture"), str):
            raise ValueError("no architecture")
        pretrained = found.pop("pretrained_cfg", {})
        if not isinstance(pretrained, dict) or not isinstance(found.get("model_args") or {}, dict):
            raise ValueError("not objects")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its {CONFIG} is not timm's") from error
    return pretrained | found


def _arguments(config: dict[str, Any]) -> Arguments:
    given = dict(config.get("model_args") or {})
    if isinstance(classes := config.get("num_classes"), int):
        given.setdefault("num_classes", classes)
    try:
        return Arguments.model_validate(given)
    except ValidationError as error:
        names = ", ".join(sorted({str(each["loc"][0]) for each in error.errors()}))
        raise CheckpointError(f"its {CONFIG} has arguments that are not allowed: {names}") from error


def _changes(config: dict[str, Any]) -> InputChanges:
    """Those that make sense; the rest is timm's default."""
    given: dict[str, Any] = {}
    for name in InputChanges.model_fields:
        try:
            InputChanges.model_validate({name: config.get(name)})
            given[name] = config.get(name)
        except ValidationError:
            continue
    return InputChanges.model_validate(given)


def _translated(weights: Path, architecture: str, arguments: Arguments, directory: Path) -> Path:
    """As the architecture names them now: older checkpoints of timm's have other names, or tensors that it drops."""
    overlay: dict[str, Any] = {"file": str(weights), "source": "", "custom_load": False}
    if arguments.num_classes is not None:
        overlay["num_classes"] = arguments.num_classes  # or timm would leave out a classifier of another size
    try:
        model = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay=overlay, **arguments.given())
    except Exception as error:  # of a checkpoint that is none of this architecture
        raise CheckpointError(f"it does not fit {architecture}: {first_line(error)[:500]}") from error
    target = directory / "translated.safetensors"
    save_file({name: each.clone().contiguous() for name, each in model.state_dict().items()}, target)
    return target
