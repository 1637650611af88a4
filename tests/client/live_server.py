"""The real API under uvicorn, and the hands of a worker: what the client is for, without the compression."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from structlog.testing import capture_logs

from api.app import create_app
from core import catalog
from core.dry_run import dry_run
from core.recipe import FisherRecipe
from core.report import (
    Accuracy,
    Change,
    Constraint,
    DataUse,
    Environment,
    Latency,
    McNemar,
    Measured,
    Proportion,
    Report,
)
from examples import SWEEP_REPORT
from hands import Worker
from migrations.upgrade import upgrade
from serving import serving
from steps import empty
from store import attempts
from store.session import transaction
from store.settings import Settings
from store.values import Claim, JobError
from vitpress.plan import Plan

MODEL, DATASET = "sample:vit_fmnist", "local:letters"
RECIPE = FisherRecipe(target_ratio=0.5)


class LiveServer(Worker):
    def __init__(self, directory: Path, auth: Literal["local", "keys"] = "local") -> None:
        settings = Settings(
            data_dir=directory / "data",
            datasets_dir=_dataset(directory / "datasets"),
            auth=auth,
            broker_url="redis://127.0.0.1:1",  # nobody there: jobs are accepted all the same
        )
        super().__init__(settings)
        upgrade(self.engine)
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        self._exits.enter_context(capture_logs())  # stdout is the command's
        self.url = self._exits.enter_context(serving(create_app(self.settings)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()

    def clear(self) -> None:
        empty(self.engine)

    def lose(self, claim: Claim) -> None:
        with transaction(self.engine) as session:
            attempts.lose(session, claim, JobError("killed", "the worker was killed"))

    def succeed(self, claim: Claim, *files: Path) -> None:
        """With ``files`` as the artifacts, or with the plan as the only one."""
        contents = {file.name: file.read_bytes() for file in files}
        self.finish(claim, contents or {"plan.json": plan().model_dump_json().encode()}, plan(), report())

    def succeed_in_sweep(self, claim: Claim) -> None:
        """With two models, whose weights are their ratios in words."""
        contents = {
            "report.json": b"{}",
            "ratio-0.3/model.safetensors": b"three tenths",
            "ratio-0.3/plan.json": plan(0.3).model_dump_json().encode(),
            "ratio-0.5/model.safetensors": b"a half",
            "ratio-0.5/plan.json": plan().model_dump_json().encode(),
        }
        self.finish(claim, contents, [plan(0.3), plan()], SWEEP_REPORT)


def plan(ratio: float = 0.5) -> Plan:
    return dry_run(catalog.get(MODEL).shape, RECIPE.model_copy(update={"target_ratio": ratio}))


def report() -> Report:
    return Report(
        recipe=RECIPE,
        constraint=Constraint(requested=0.5, achieved=0.497, met=True),
        before=_measured(1_896_010, 7_584_043, 52.5, 0.921),
        after=_measured(953_693, 3_792_021, 35.0, 0.919),
        change=Change(
            relative_increase_in_error=0.0253,
            mcnemar=McNemar(only_before_right=23, only_after_right=21, p_value=0.88),
            agreement=Proportion(value=0.973, low=0.965, high=0.979),
            kl_nats=0.0131,
        ),
        data=DataUse(
            calibration_images=2048,
            evaluation_images=1009,
            source="given",
            overlapping_images_dropped=3,
            seed=0,
        ),
        environment=Environment(device="cpu", threads=2, versions={"torch": "2"}),
        seconds={"calibrate": 12.5},
        left_dense={},
        reload_max_abs_difference=1e-6,
    )


def _measured(parameters: int, macs: int, p50_ms: float, top1: float) -> Measured:
    return Measured(
        parameters=parameters,
        macs=macs,
        file_bytes=4 * parameters,
        latency=(Latency(batch=64, p50_ms=p50_ms, p95_ms=p50_ms * 1.1, images_per_second=64_000 / p50_ms),),
        accuracy=Accuracy(top1=Proportion(value=top1, low=top1 - 0.017, high=top1 + 0.017), top5=None, images=1009),
    )


def _dataset(root: Path) -> Path:
    """Two classes of one image each, in both splits."""
    from PIL import Image

    for split in ("calibration", "test"):
        for letter in ("a", "b"):
            folder = root / "letters" / split / letter
            folder.mkdir(parents=True)
            Image.new("L", (28, 28)).save(folder / "1.png")
    return root
