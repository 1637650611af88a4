"""The hands of a worker: they move jobs by the store's own functions, and compute nothing."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from core.progress import Progress, Stage
from core.recipe import AnyRecipe
from core.report import AnyReport
from examples import PLAN, RECIPE, REPORT
from steps import Steps
from store import attempts
from store.blobs import Blobs
from store.owners import LOCAL
from store.session import engine
from store.settings import Settings
from store.values import ArtifactView, Claim, JobError, Place
from vitpress.plan import Plan

MODEL, DATASET = "sample:vit_fmnist", "local:shoes"
PLAN_ALONE = {"plan.json": PLAN.model_dump_json().encode()}
LEASE = timedelta(minutes=5)


class Worker:
    def __init__(self, settings: Settings, place: Place = LOCAL) -> None:
        """``place``: whose jobs it submits; it works on anybody's."""
        self.settings = settings
        self.place = place
        self.engine = engine(settings)
        self._steps = Steps(self.engine)

    def submit(self, model: str = MODEL, dataset: str = DATASET, recipe: AnyRecipe = RECIPE) -> str:
        return self._steps.submit(place=self.place, model=model, dataset=dataset, recipe=recipe).id

    def claim(self) -> Claim:
        return self._steps.claim(lease=LEASE)

    def progress(
        self,
        claim: Claim,
        stage: Stage,
        fraction: float,
        loss: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        self._steps.do(attempts.record_progress, claim, Progress(stage, fraction, loss, eta_seconds))

    def fail(self, claim: Claim, code: str, message: str) -> None:
        self._steps.do(attempts.fail, claim, JobError(code, message))

    def finish(
        self,
        claim: Claim,
        files: Mapping[str, bytes] = PLAN_ALONE,
        plan: Plan | Sequence[Plan] = PLAN,
        report: AnyReport = REPORT,
        stage_seconds: Mapping[Stage, float] = {},
    ) -> None:
        artifacts = [self._put(claim, name, content) for name, content in files.items()]
        self._steps.do(
            attempts.finish, claim, plan=plan, report=report, artifacts=artifacts, stage_seconds=stage_seconds
        )

    def _put(self, claim: Claim, name: str, content: bytes) -> ArtifactView:
        path = self.settings.data_dir / "outbox"
        path.parent.mkdir(parents=True, exist_ok=True)  # a server that is still starting has not made it yet
        path.write_bytes(content)
        key = f"jobs/{claim.job_id}/attempt-{claim.attempt}/{name}"
        stored = Blobs.open(self.settings).put_file(key, path)
        return ArtifactView(name, stored.size, stored.sha256, "application/octet-stream", key)
