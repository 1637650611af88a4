"""Real jobs with goals beyond one ratio, and one on a dataset that was brought, run to their end: on a tiny model and
images made here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from core import measure
from core.evidence import Evidence
from core.progress import Stage
from core.recipe import AnyRecipe, FisherRecipe
from core.report import Report, SweepReport
from migrations.upgrade import upgrade
from steps import Steps
from store import checks, datasets, events, jobs
from store.blobs import Blobs
from store.columns import uuid7
from store.owners import LOCAL
from store.session import engine
from store.settings import Settings
from store.states import JobKind, JobState
from store.values import JobView
from vitpress import artifact
from vitpress.artifact import ModelConfig, Preprocessing
from worker import runner

MODEL, DATASET = "sample:vit_fmnist", "local:stripes"  # a name of the catalogue, for a model of our own
CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    kwargs={
        "img_size": 12,
        "patch_size": 4,
        "in_chans": 1,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 2,
    },
    preprocessing=Preprocessing(input_size=(1, 12, 12), mean=(0.5,), std=(0.5,)),
    class_names=("across", "down"),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    root = tmp_path_factory.mktemp("sweeps")
    torch.manual_seed(0)
    model = timm.create_model(CONFIG.architecture, **CONFIG.kwargs)
    artifact.save(model, CONFIG, None, root / "samples" / "vit_fmnist")
    generator = np.random.default_rng(0)
    for split in ("calibration", "test"):
        for axis, name in enumerate(("across", "down")):
            folder = root / "datasets" / "stripes" / split / name
            folder.mkdir(parents=True)
            for index in range(24):
                stripes = np.indices((12, 12))[axis] % 4 < 2
                pixels = np.clip(255 * stripes + generator.normal(0, 60, (12, 12)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    settings = Settings(
        data_dir=root / "data",
        samples_dir=root / "samples",
        datasets_dir=root / "datasets",
        device="cpu",
    )
    settings.data_dir.mkdir()
    upgrade(engine(settings))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measure, "LATENCY_SECONDS", 0.02)
        yield settings


@pytest.fixture(scope="module")
def own_steps(settings: Settings) -> Steps:
    return Steps(engine(settings))


def run(steps: Steps, settings: Settings, recipe: AnyRecipe) -> JobView:
    job = steps.submit(model=MODEL, dataset=DATASET, recipe=recipe)
    runner.run(steps.claim(), settings)
    return steps.get(job.id)


@pytest.fixture(scope="module")
def sweep(own_steps: Steps, settings: Settings) -> JobView:
    return run(own_steps, settings, FisherRecipe(target_ratios=(0.5, 0.25), calibration_images=32))


class TestASweep:
    def test_succeeds_with_a_table_and_a_plan_for_each_ratio(self, own_steps: Steps, sweep: JobView) -> None:
        assert (sweep.state, sweep.constraint) == (JobState.SUCCEEDED, None)
        report = own_steps.do(jobs.report, sweep.id)
        assert isinstance(report, SweepReport)
        assert [row.ratio for row in report.table] == [0.25, 0.5]
        plans = own_steps.do(jobs.plans, sweep.id)
        assert [plan.parameters_after for plan in plans] == [row.parameters for row in report.table]
        assert [plan.ratio for plan in plans] == [pytest.approx(0.25, abs=0.01), pytest.approx(0.5, abs=0.01)]
        for each in report.reports:
            assert each.constraint.met
            assert each.reload_max_abs_difference is not None
            assert each.reload_max_abs_difference < 1e-5

    def test_leaves_a_loadable_artifact_for_each_ratio_and_one_report(
        self, own_steps: Steps, settings: Settings, sweep: JobView, tmp_path: Path
    ) -> None:
        blobs = Blobs.open(settings)
        for view in own_steps.do(jobs.artifacts, sweep.id):
            path = tmp_path / "got" / view.name
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.get_file(view.blob_key, path)
        names = {"model.safetensors", "config.json", "plan.json", "report.json", "evidence.json"}
        got = {
            path.relative_to(tmp_path / "got").as_posix() for path in (tmp_path / "got").rglob("*.*") if path.is_file()
        }
        assert got == {"report.json"} | {f"ratio-{ratio}/{name}" for ratio in (0.25, 0.5) for name in names}
        stored = own_steps.do(jobs.report, sweep.id)
        assert SweepReport.model_validate_json((tmp_path / "got" / "report.json").read_bytes()) == stored
        assert isinstance(stored, SweepReport)
        for row in stored.table:
            model = artifact.load(tmp_path / "got" / row.folder)
            assert sum(each.numel() for each in model.parameters()) == row.parameters
            report = Report.model_validate_json((tmp_path / "got" / row.folder / "report.json").read_bytes())
            assert report.constraint.requested == row.ratio
            evidence = Evidence.model_validate_json((tmp_path / "got" / row.folder / "evidence.json").read_bytes())
            assert evidence.class_names == ("across", "down")
            assert sum(cell.after for cell in evidence.confusion) == report.after.accuracy.images
            assert all(image.thumbnail for image in evidence.changes.images)

    def test_goes_through_every_stage_once(self, own_steps: Steps, sweep: JobView) -> None:
        log = own_steps.do(events.after, sweep.id)
        stages = [event.stage for event in log if event.kind == "stage"]
        assert stages == [Stage.LOAD, Stage.CALIBRATE, Stage.COMPRESS, Stage.EVALUATE, Stage.EXPORT, Stage.UPLOAD]


class TestAnErrorIncrease:
    def test_is_stored_with_how_it_was_looked_for(self, own_steps: Steps, settings: Settings) -> None:
        job = run(own_steps, settings, FisherRecipe(max_error_increase=0.5, calibration_images=32))
        report = own_steps.do(jobs.report, job.id)
        assert isinstance(report, Report)
        assert job.constraint == report.constraint
        assert report.constraint.kind == "max_error_increase"
        assert report.search is not None
        assert report.search.held_out_images == 8
        assert 0 <= report.search.chosen < len(report.search.trials)


class TestAnOwnDataset:
    def test_is_what_the_job_reads_but_for_its_broken_image(
        self, own_steps: Steps, settings: Settings, tmp_path: Path
    ) -> None:
        assert settings.datasets_dir is not None
        folder = shutil.copytree(settings.datasets_dir / "stripes", tmp_path / "folder")
        (folder / "test" / "down" / "broken.png").write_bytes(b"\x89PNG")
        archive = Path(shutil.make_archive(str(tmp_path / "stripes"), "gztar", folder))
        dataset_id = uuid7()
        stored = Blobs.open(settings).put_file(datasets.data_key(dataset_id), archive)
        own_steps.do(datasets.create, LOCAL.owner_id, "stripes", dataset_id=dataset_id, stored=stored)
        own_steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
        runner.run(own_steps.claim(), settings)

        job = own_steps.submit(
            model=MODEL, dataset="own:stripes", recipe=FisherRecipe(target_ratio=0.5, calibration_images=32)
        )
        runner.run(own_steps.claim(), settings)
        report = own_steps.do(jobs.report, job.id)
        assert isinstance(report, Report)
        assert (report.data.calibration_images, report.data.evaluation_images) == (32, 48)
