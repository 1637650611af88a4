"""A job that lost its workers goes on from its last checkpoint, and ends as one that was left in peace."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from figures import Figures
from gate import behind_checkpoint
from history import judge, read
from house import SECONDS, House

import processes
import services
import vitpress
from core.progress import Stage
from core.report import Report
from steps import Steps
from store import events, jobs
from store.blobs import Blobs
from store.settings import Settings
from store.states import JobState
from store.values import EventView
from vitpress.artifact import ModelConfig

RECIPE = {
    "method": "vtp",
    "target_ratio": 0.5,
    "calibration_images": 64,
    "epochs": 25,
    "batch_size": 16,
    "finetune": {"steps": 60, "batch_size": 16, "patience": None, "checkpoint_seconds": 0.05},
}
STEPS = 25 * 64 // 16  # of the method's training
LEFT_BY = {Stage.COMPRESS: "deciding.json", Stage.FINETUNE: "training.json"}  # a file of each stage's checkpoints


@pytest.fixture
def steps(house: House) -> Steps:
    return Steps(house.database())


def done(log: Sequence[EventView], stage: Stage, attempt: int) -> list[float]:
    """Which fractions of the training in ``stage`` the attempt told of."""
    return [each.fraction for each in log if (each.stage, each.attempt) == (stage, attempt) and each.loss is not None]


def answers(house: House, steps: Steps, job_id: str, directory: Path) -> torch.Tensor:
    """Of the job's model, to images that are always the same."""
    directory.mkdir()
    for each in steps.do(jobs.artifacts, job_id):
        Blobs.open(Settings(data_dir=house.directory)).get_file(each.blob_key, directory / each.name)
    model = vitpress.load(directory)
    size = ModelConfig.model_validate_json((directory / "config.json").read_bytes()).preprocessing.input_size
    with torch.inference_mode():
        return model(torch.randn(16, *size, generator=torch.Generator().manual_seed(3)))  # type: ignore[no-any-return]


@pytest.mark.timeout(1800)
def test_a_job_that_is_killed_while_it_trains_loses_no_more_than_what_came_after_its_checkpoint(
    house: House, steps: Steps, tmp_path: Path, figures: Figures
) -> None:
    """Killed twice: while the method trains what goes, and while the fine-tuning trains what stays."""
    with house.api(VITPRESS_MAX_ATTEMPTS="3"):
        job_id = house.submit(recipe=RECIPE)
        for attempt, stage in enumerate(LEFT_BY, 1):
            place = behind_checkpoint(job_id, LEFT_BY[stage], attempt)
            with house.gate(place) as gate, house.worker(f"worker-{attempt}") as worker:
                services.wait_until(gate.somebody_waits, 4 * SECONDS)
                runner = processes.runner_of(worker.pid, job_id)
                worker.kill()
                services.wait_until(lambda pid=runner.pid: not processes.is_running(pid), SECONDS)  # type: ignore[misc]
        with house.worker("last"):
            house.wait_for_end(job_id)
            undisturbed_id = house.submit(recipe=RECIPE)
            house.wait_for_end(undisturbed_id)

    assert judge([job_id, undisturbed_id], read(house.database())).is_clean
    job = house.look(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 3)
    log = steps.do(events.after, job_id, limit=10_000)
    assert Stage.COMPRESS not in {each.stage for each in log if each.attempt == 3}
    resumed_at = min(done(log, Stage.COMPRESS, attempt=2))
    assert 1 / STEPS < resumed_at < 1  # the first step is what one from zero would have told of
    report = steps.do(jobs.report, job_id)
    assert isinstance(report, Report)
    assert report.finetune is not None
    assert report.finetune.steps == 60
    assert report.finetune.resumed_from_step is not None
    assert 0 < report.finetune.resumed_from_step < 60

    assert steps.do(jobs.plans, job_id) == steps.do(jobs.plans, undisturbed_id)
    resumed, undisturbed = (
        answers(house, steps, each, tmp_path / name) for each, name in ((job_id, "r"), (undisturbed_id, "u"))
    )
    difference = float((resumed - undisturbed).abs().max())
    figures.record(
        "kill -9 while it trains, twice: against an undisturbed job",
        logits_differ_by=difference,
        resumed_at_step_of_compress=round(resumed_at * STEPS) - 1,
        resumed_at_step_of_finetune=report.finetune.resumed_from_step,
    )
    torch.testing.assert_close(resumed, undisturbed, rtol=1e-4, atol=1e-4)
