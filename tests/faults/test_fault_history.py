"""The judge itself: each thing that may not be is put before it, and none may pass."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from history import Moment, Past, judge, read
from sqlalchemy import Engine

from core.progress import Progress, Stage
from examples import PLAN, REPORT
from steps import Steps
from store import attempts, jobs
from store.states import EventKind, JobKind, JobState
from store.values import ArtifactView, JobError

QUEUED, RUNNING, CANCELLING = JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING
SUCCEEDED, FAILED, CANCELLED = JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED
START = datetime(2026, 1, 1, tzinfo=UTC)
LOST = ((QUEUED, 0), (RUNNING, 1), (QUEUED, 1), (RUNNING, 2))


def past(*states: tuple[JobState, int], **row: object) -> Past:
    """A compression whose row is as the last of ``states`` says, but for what ``row`` says."""
    moments = tuple(
        Moment(EventKind.STATE, state, attempt, START + timedelta(seconds=index))
        for index, (state, attempt) in enumerate(states)
    )
    state, attempt = states[-1]
    well = state is SUCCEEDED
    usual = Past(
        job_id="j",
        kind=JobKind.COMPRESS,
        state=state,
        attempt=attempt,
        max_attempts=3,
        is_leased=state in {RUNNING, CANCELLING},
        has_report=well,
        artifacts=(f"jobs/j/attempt-{attempt}/plan.json",) if well else (),
        moments=moments,
    )
    return replace(usual, **row)  # type: ignore[arg-type]


def among(known: Past, index: int, moment: Moment) -> Past:
    return replace(known, moments=(*known.moments[:index], moment, *known.moments[index:]))


class TestWhatIsLegal:
    @pytest.mark.parametrize(
        "known",
        [
            past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1)),
            past((QUEUED, 0), (RUNNING, 1), (FAILED, 1)),
            past((QUEUED, 0), (CANCELLED, 0)),
            past((QUEUED, 0), (RUNNING, 1), (CANCELLING, 1), (CANCELLED, 1)),
            past(*LOST, (SUCCEEDED, 2)),
            past((QUEUED, 0), (RUNNING, 1), (FAILED, 1), (QUEUED, 1), (RUNNING, 2), (SUCCEEDED, 2)),
            past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), kind=JobKind.CHECK_MODEL, artifacts=(), has_report=False),
        ],
        ids=["success", "failure", "cancelled while it waits", "while it runs", "lost", "retried", "a check"],
    )
    def test_passes(self, known: Past) -> None:
        assert judge(["j"], [known]).is_clean

    def test_so_do_the_stages_of_an_attempt(self) -> None:
        known = past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1))
        stage = Moment(EventKind.STAGE, RUNNING, 1, START + timedelta(seconds=1.5), "load")
        assert judge(["j"], [among(known, 2, stage)]).is_clean


class TestWhatIsLost:
    def test_is_an_accepted_job_that_is_not_there(self) -> None:
        assert judge(["j", "k"], [past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1))]).lost == ("k",)

    @pytest.mark.parametrize("states", [LOST[:1], LOST[:2], LOST[:3], (*LOST[:2], (CANCELLING, 1))])
    def test_is_one_that_has_not_ended(self, states: tuple[tuple[JobState, int], ...]) -> None:
        verdict = judge(["j"], [past(*states)])
        assert verdict.lost == ("j",)
        assert not verdict.illegal


class TestWhatIsDoneTwice:
    def test_is_a_job_with_two_successes(self) -> None:
        known = past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), (SUCCEEDED, 1))
        assert judge(["j"], [known]).duplicates == ("j",)

    @pytest.mark.parametrize("key", ["jobs/j/attempt-1/plan.json", "jobs/k/attempt-2/plan.json"])
    def test_is_one_with_a_file_of_another_attempt(self, key: str) -> None:
        known = past(*LOST, (SUCCEEDED, 2), artifacts=("jobs/j/attempt-2/model.safetensors", key))
        assert judge(["j"], [known]).duplicates == ("j",)


class TestWhatIsIllegal:
    @pytest.mark.parametrize(
        ("known", "offence"),
        [
            (past((RUNNING, 1), (SUCCEEDED, 1)), "began as running in attempt 1"),
            (past((QUEUED, 1), (RUNNING, 2), (SUCCEEDED, 2)), "began as queued in attempt 1"),
            (past((QUEUED, 0), (RUNNING, 0), (SUCCEEDED, 0)), "from attempt 0 (queued) to 0 (running)"),
            (past((QUEUED, 0), (RUNNING, 2), (SUCCEEDED, 2)), "from attempt 0 (queued) to 2 (running)"),
            (past(*LOST[:3], (RUNNING, 1), (SUCCEEDED, 1)), "from attempt 1 (queued) to 1 (running)"),
            (past(*LOST, (SUCCEEDED, 1)), "from attempt 2 (running) to 1 (succeeded)"),
            (past((QUEUED, 0), (SUCCEEDED, 0)), "from queued to succeeded"),
            (past((QUEUED, 0), (RUNNING, 1), (RUNNING, 1), (SUCCEEDED, 1)), "from running to running"),
            (past((QUEUED, 0), (RUNNING, 1), (CANCELLED, 1)), "from running to cancelled"),
            (past((QUEUED, 0), (RUNNING, 1), (CANCELLING, 1), (SUCCEEDED, 1)), "from cancelling to succeeded"),
            (past((QUEUED, 0), (RUNNING, 1), (CANCELLING, 1), (QUEUED, 1), (CANCELLED, 1)), "from cancelling to queue"),
            (past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), (QUEUED, 1), (CANCELLED, 1)), "from succeeded to queued"),
            (past((QUEUED, 0), (RUNNING, 1), (FAILED, 1), (FAILED, 1)), "from failed to failed"),
            (past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), state=FAILED, artifacts=()), "its log ends otherwise"),
            (past(*LOST, (SUCCEEDED, 2), attempt=3, artifacts=("jobs/j/attempt-3/a",)), "its log ends otherwise"),
            (past(*LOST, (SUCCEEDED, 2), moments=()), "its log ends otherwise"),
            (past(*LOST, (SUCCEEDED, 2), max_attempts=1), "attempt 2 of 1"),
            (past((QUEUED, 0), (RUNNING, 1), (FAILED, 1), is_leased=True), "is failed, and has lease"),
            (past((QUEUED, 0), (RUNNING, 1), is_leased=False), "is running, and has no lease"),
            (past((QUEUED, 0), (RUNNING, 1), (FAILED, 1), artifacts=("jobs/j/attempt-1/a",)), "has artifacts"),
            (past((QUEUED, 0), (RUNNING, 1), (FAILED, 1), has_report=True), "has a report"),
            (past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), artifacts=()), "without artifacts or report"),
            (past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1), has_report=False), "without artifacts or report"),
        ],
    )
    def test_is_found_and_named(self, known: Past, offence: str) -> None:
        assert any(offence in each for each in judge(["j"], [known]).illegal)

    @pytest.mark.parametrize(
        ("index", "moment"),
        [
            (1, Moment(EventKind.STAGE, QUEUED, 0, START + timedelta(seconds=0.5), "load")),
            (2, Moment(EventKind.PROGRESS, CANCELLING, 1, START + timedelta(seconds=1.5), "load")),
            (2, Moment(EventKind.PROGRESS, RUNNING, 2, START + timedelta(seconds=1.5), "load")),
            (3, Moment(EventKind.PROGRESS, SUCCEEDED, 1, START + timedelta(seconds=2.5), "upload")),
            (2, Moment(EventKind.PROGRESS, RUNNING, 1, START, "load")),
        ],
        ids=["before the claim", "of another state", "of another attempt", "after the end", "before its time"],
    )
    def test_is_progress_of_an_attempt_that_does_not_hold_the_job(self, index: int, moment: Moment) -> None:
        known = past((QUEUED, 0), (RUNNING, 1), (SUCCEEDED, 1))
        assert judge(["j"], [among(known, index, moment)]).illegal


class TestReading:
    def test_a_past_is_what_the_database_has_of_a_job(self, database: Engine, steps: Steps) -> None:
        lost, waiting = steps.submit().id, steps.submit().id
        claim = steps.claim()
        steps.do(attempts.record_progress, claim, Progress(Stage.LOAD, 0.0))
        steps.do(attempts.lose, claim, JobError("killed", "by SIGKILL"))
        claim = steps.claim()
        key = f"jobs/{lost}/attempt-2/plan.json"
        artifact = ArtifactView("plan.json", 1013, "ab" * 32, "application/json", key)
        steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[artifact], stage_seconds={})
        steps.do(jobs.request_cancel, waiting)
        first, second = read(database)
        assert (first.job_id, first.state, first.attempt, first.artifacts) == (lost, SUCCEEDED, 2, (key,))
        assert (first.has_report, first.is_leased, first.max_attempts) == (True, False, 3)
        assert [(each.state, each.attempt, each.stage) for each in first.moments] == [
            (QUEUED, 0, None),
            (RUNNING, 1, None),
            (RUNNING, 1, "load"),
            (QUEUED, 1, None),
            (RUNNING, 2, None),
            (SUCCEEDED, 2, None),
        ]
        assert first.moments[3].message == "by SIGKILL"
        assert [each.attempt for each in first.starts()] == [1, 2]
        assert (second.job_id, second.state) == (waiting, CANCELLED)
        assert judge([lost, waiting], [first, second]).is_clean
