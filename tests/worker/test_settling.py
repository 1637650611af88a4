"""What the worker writes after a runner has ended, case by case."""

import pytest
from sqlalchemy import Engine

from examples import PLAN, REPORT
from steps import Steps
from store import attempts, jobs, queue
from store.states import JobState
from store.values import Claim, JobError
from worker.app import app
from worker.supervisor import Ending, How
from worker.tasks import settle

KILLED = JobError("killed", "the runner was killed by SIGKILL")


@pytest.fixture
def claim(steps: Steps) -> Claim:
    steps.submit(max_attempts=2)
    return steps.claim()


class TestSettling:
    def test_a_timeout_fails_the_job_by_name_at_the_first_attempt(
        self, database: Engine, steps: Steps, claim: Claim
    ) -> None:
        settle(database, claim, Ending(How.TIMED_OUT, KILLED), timeout_seconds=601)
        job = steps.get(claim.job_id)
        assert (job.state, job.error) == (JobState.FAILED, JobError("timeout", "the job ran for longer than 601 s"))

    def test_a_drained_attempt_is_handed_back(self, database: Engine, steps: Steps, claim: Claim) -> None:
        settle(database, claim, Ending(How.DRAINED, KILLED), 601)
        job = steps.get(claim.job_id)
        assert (job.state, job.attempt, job.max_attempts) == (JobState.QUEUED, 1, 3)

    def test_a_killed_runner_costs_an_attempt_and_the_last_one_the_job(
        self, database: Engine, steps: Steps, claim: Claim
    ) -> None:
        settle(database, claim, Ending(How.BY_ITSELF, KILLED), 601)
        assert steps.get(claim.job_id).state is JobState.QUEUED
        settle(database, steps.claim(), Ending(How.BY_ITSELF, KILLED), 601)
        assert (steps.get(claim.job_id).state, steps.get(claim.job_id).error) == (JobState.FAILED, KILLED)

    @pytest.mark.parametrize("how", list(How))
    def test_a_job_that_was_to_be_cancelled_is_cancelled_however_it_ended(
        self, database: Engine, steps: Steps, claim: Claim, how: How
    ) -> None:
        steps.do(jobs.request_cancel, claim.job_id)
        settle(database, claim, Ending(how, KILLED), 601)
        assert steps.get(claim.job_id).state is JobState.CANCELLED

    @pytest.mark.parametrize("how", list(How))
    def test_an_outcome_that_the_runner_wrote_stands(
        self, database: Engine, steps: Steps, claim: Claim, how: How
    ) -> None:
        steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[], stage_seconds={})
        before = steps.get(claim.job_id)
        settle(database, claim, Ending(how, KILLED), 601)
        assert steps.get(claim.job_id) == before


class TestTheTask:
    def test_the_name_that_is_sent_is_the_one_that_is_registered(self) -> None:
        assert [name for name in app.tasks if not name.startswith("celery.")] == [queue.WORK]

    def test_a_message_is_acknowledged_before_the_work(self) -> None:
        assert not app.tasks[queue.WORK].acks_late
        assert app.conf.result_backend is None
