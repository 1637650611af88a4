"""The state machine, transition by transition, on both databases."""

from typing import Any

import pytest

from core.progress import Progress, Stage
from core.recipe import Finetune
from examples import PLAN, RECIPE, REPORT, SWEEP_RECIPE, SWEEP_REPORT
from steps import LEASE, Steps
from store import attempts, events, jobs, upkeep
from store.errors import JobFinishedError, JobNotFoundError, LeaseLostError
from store.states import EventKind, JobState, Queue
from store.tables import LOCAL_ID
from store.values import ArtifactView, CheckpointFile, Claim, JobError, Lease

CRASH = JobError("killed", "the runner was killed by SIGKILL")


def finish(steps: Steps, claim: Claim) -> None:
    steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[], stage_seconds={Stage.LOAD: 2.0})


class TestSubmitting:
    def test_a_new_job_is_queued_with_everything_it_was_given(self, steps: Steps) -> None:
        job = steps.submit(name="tuesday", labels={"team": "vision"}, timeout_seconds=601, max_attempts=5)
        assert job == steps.get(job.id)
        assert (job.state, job.attempt, job.max_attempts, job.position) == (JobState.QUEUED, 0, 5, 1)
        assert (job.name, job.labels, job.timeout_seconds) == ("tuesday", {"team": "vision"}, 601)
        assert job.recipe.method == "fisher"
        assert job.created_at.utcoffset() is not None
        assert (job.started_at, job.finished_at, job.error, job.constraint, job.eta_seconds) == (None,) * 5

    def test_an_unknown_job_is_an_error(self, steps: Steps) -> None:
        for read in (jobs.get, jobs.plans, jobs.report, jobs.artifacts, jobs.request_cancel):
            with pytest.raises(JobNotFoundError, match="nothing"):
                steps.do(read, "nothing")


class TestSucceeding:
    def test_finish_stores_the_whole_outcome_at_once(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        artifact = ArtifactView("plan.json", 1013, "ab" * 32, "application/json", "jobs/1/attempt-1/plan.json")
        steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[artifact], stage_seconds={})
        job = steps.get(claim.job_id)
        assert job.state is JobState.SUCCEEDED
        assert job.state.is_final
        assert job.finished_at is not None
        assert job.started_at is not None
        assert job.finished_at >= job.started_at
        assert job.constraint == REPORT.constraint
        assert steps.do(jobs.plans, job.id) == (PLAN,)
        assert steps.do(jobs.report, job.id) == REPORT
        assert steps.do(jobs.artifacts, job.id) == [artifact]

    def test_of_a_sweep_stores_a_plan_for_each_model_and_no_constraint(self, steps: Steps) -> None:
        steps.submit(recipe=SWEEP_RECIPE)
        claim = steps.claim()
        other = PLAN.model_copy(update={"parameters_after": 840_001})
        steps.do(attempts.finish, claim, plan=[other, PLAN], report=SWEEP_REPORT, artifacts=[], stage_seconds={})
        job = steps.get(claim.job_id)
        assert (job.state, job.constraint, job.recipe) == (JobState.SUCCEEDED, None, SWEEP_RECIPE)
        assert steps.do(jobs.plans, job.id) == (other, PLAN)
        assert steps.do(jobs.report, job.id) == SWEEP_REPORT

    def test_before_that_there_is_no_plan_report_or_artifact(self, steps: Steps) -> None:
        job = steps.submit()
        assert steps.do(jobs.plans, job.id) == ()
        assert steps.do(jobs.report, job.id) is None
        assert steps.do(jobs.artifacts, job.id) == []


class TestFailing:
    def test_fail_is_final_whatever_attempts_are_left(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        steps.do(attempts.fail, claim, JobError("bad_dataset", "no image"))
        job = steps.get(claim.job_id)
        assert (job.state, job.error) == (JobState.FAILED, JobError("bad_dataset", "no image"))
        assert steps.do(attempts.claim, "worker-b", [Queue.CPU], LEASE) is None


class TestLosingAnAttempt:
    def test_the_job_is_queued_again_until_its_attempts_are_used_up(self, steps: Steps) -> None:
        job = steps.submit(max_attempts=2)
        first = steps.claim()
        assert steps.do(attempts.lose, first, CRASH) is JobState.QUEUED
        assert (steps.get(job.id).error, steps.get(job.id).stage) == (None, None)
        second = steps.claim()
        assert (second.job_id, second.attempt) == (job.id, 2)
        assert second.token != first.token
        assert steps.do(attempts.lose, second, CRASH) is JobState.FAILED
        assert steps.get(job.id).error == CRASH

    def test_a_job_that_was_to_be_cancelled_is_cancelled(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        steps.do(jobs.request_cancel, claim.job_id)
        assert steps.do(attempts.lose, claim, CRASH) is JobState.CANCELLED
        assert steps.get(claim.job_id).error is None

    def test_a_finished_attempt_is_not_lost(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        finish(steps, claim)
        assert steps.do(attempts.lose, claim, CRASH) is None
        assert steps.get(claim.job_id).state is JobState.SUCCEEDED


class TestReleasing:
    def test_the_job_is_queued_again_and_the_attempt_does_not_count(self, steps: Steps) -> None:
        job = steps.submit(max_attempts=1)
        assert steps.do(attempts.release, steps.claim()) is JobState.QUEUED
        again = steps.claim()
        assert (again.job_id, again.attempt) == (job.id, 2)
        assert steps.get(job.id).max_attempts == 2
        assert steps.do(attempts.lose, again, CRASH) is JobState.FAILED

    def test_a_job_that_was_to_be_cancelled_is_cancelled(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        steps.do(jobs.request_cancel, claim.job_id)
        assert steps.do(attempts.release, claim) is JobState.CANCELLED


class TestCancelling:
    def test_a_queued_job_is_cancelled_at_once_and_never_claimed(self, steps: Steps) -> None:
        job = steps.do(jobs.request_cancel, steps.submit().id)
        assert job.state is JobState.CANCELLED
        assert job.finished_at is not None
        assert steps.do(attempts.claim, "worker-a", [Queue.CPU], LEASE) is None

    def test_a_running_job_hears_of_it_by_its_heartbeat(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        assert steps.do(attempts.heartbeat, claim, LEASE) is Lease.HELD
        job = steps.do(jobs.request_cancel, claim.job_id)
        assert (job.state, job.finished_at) == (JobState.CANCELLING, None)
        assert steps.do(attempts.heartbeat, claim, LEASE) is Lease.CANCEL
        steps.do(attempts.end_cancelled, claim)
        assert steps.get(claim.job_id).state is JobState.CANCELLED

    def test_asking_twice_changes_nothing(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        once = steps.do(jobs.request_cancel, claim.job_id)
        assert steps.do(jobs.request_cancel, claim.job_id) == once

    def test_it_wins_over_an_outcome_that_comes_later(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        steps.do(jobs.request_cancel, claim.job_id)
        with pytest.raises(LeaseLostError):
            finish(steps, claim)
        with pytest.raises(LeaseLostError):
            steps.do(attempts.fail, claim, CRASH)
        assert steps.get(claim.job_id).state is JobState.CANCELLING
        assert steps.do(jobs.artifacts, claim.job_id) == []

    def test_a_finished_job_cannot_be_cancelled(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        finish(steps, claim)
        with pytest.raises(JobFinishedError) as refused:
            steps.do(jobs.request_cancel, claim.job_id)
        assert refused.value.state is JobState.SUCCEEDED

    def test_ending_a_job_that_nobody_cancelled_does_nothing(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        steps.do(attempts.end_cancelled, claim)
        assert steps.get(claim.job_id).state is JobState.RUNNING


class TestTheLog:
    def test_it_tells_every_step_in_order(self, steps: Steps) -> None:
        job = steps.submit()
        first = steps.claim()
        steps.do(attempts.record_progress, first, Progress(Stage.LOAD, 0.0))
        steps.do(attempts.record_progress, first, Progress(Stage.LOAD, 0.75))
        steps.do(attempts.lose, first, CRASH)
        finish(steps, steps.claim())
        log = steps.do(events.after, job.id)
        assert [(event.kind, event.state, event.stage, event.fraction, event.attempt) for event in log] == [
            (EventKind.STATE, JobState.QUEUED, None, 0.0, 0),
            (EventKind.STATE, JobState.RUNNING, None, 0.0, 1),
            (EventKind.STAGE, JobState.RUNNING, Stage.LOAD, 0.0, 1),
            (EventKind.PROGRESS, JobState.RUNNING, Stage.LOAD, 0.75, 1),
            (EventKind.STATE, JobState.QUEUED, None, 0.0, 1),
            (EventKind.STATE, JobState.RUNNING, None, 0.0, 2),
            (EventKind.STATE, JobState.SUCCEEDED, None, 0.0, 2),
        ]
        assert log[4].message == CRASH.message
        assert [event.id for event in log] == sorted({event.id for event in log})

    def test_it_resumes_behind_an_event(self, steps: Steps) -> None:
        job = steps.submit()
        steps.submit()
        steps.do(jobs.request_cancel, job.id)
        first, second = steps.do(events.after, job.id)
        assert steps.do(events.after, job.id, first.id) == [second]
        assert steps.do(events.after, job.id, limit=1) == [first]
        assert steps.do(events.last_ids, [job.id]) == {job.id: second.id}


class TestListing:
    def test_pages_go_from_the_newest_on_and_end(self, steps: Steps) -> None:
        ids = [steps.submit().id for _ in range(5)]
        first = steps.do(jobs.list_, LOCAL_ID, limit=3)
        second = steps.do(jobs.list_, LOCAL_ID, limit=3, cursor=first.next_cursor)
        assert [job.id for job in first.items + second.items] == ids[::-1]
        assert (first.next_cursor, second.next_cursor) == (ids[2], None)

    def test_a_job_that_arrives_meanwhile_shifts_nothing(self, steps: Steps) -> None:
        ids = [steps.submit().id for _ in range(3)]
        cursor = steps.do(jobs.list_, LOCAL_ID, limit=2).next_cursor
        steps.submit()
        assert [job.id for job in steps.do(jobs.list_, LOCAL_ID, limit=2, cursor=cursor).items] == ids[:1]

    def test_filters_combine(self, steps: Steps) -> None:
        steps.submit(model="a")
        wanted = steps.submit(model="b")
        other = steps.submit(model="b")
        steps.do(jobs.request_cancel, other.id)
        page = steps.do(jobs.list_, LOCAL_ID, model="b", states=[JobState.QUEUED, JobState.RUNNING])
        assert [job.id for job in page.items] == [wanted.id]

    @pytest.mark.parametrize(
        ("part", "expected"),
        [("net 5", [0]), ("NET", [1, 0]), ("größe", [2]), ("GRÖ", [2]), ("50%", [3]), ("5_", []), ("%", [3])],
    )
    def test_a_name_is_found_by_any_part_of_it_in_any_case(self, steps: Steps, part: str, expected: list[int]) -> None:
        names = ["Net 50", "the net", "Größe 7", "50% of it", None]
        ids = [steps.submit(name=name).id for name in names]
        page = steps.do(jobs.list_, LOCAL_ID, name=part)
        assert [ids.index(job.id) for job in page.items] == expected

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            ([("team", "vision")], [2, 0]),
            ([("team", None)], [2, 1, 0]),
            ([("team", "vision"), ("a.b/c-d", 'x = 1, "y"')], [2]),
            ([("team", "vis")], []),
            ([("team", "speech"), ("a.b/c-d", None)], []),
            ([("stage", None)], []),
        ],
    )
    def test_labels_must_all_be_there(
        self, steps: Steps, labels: list[tuple[str, str | None]], expected: list[int]
    ) -> None:
        given: list[dict[str, str]] = [
            {"team": "vision"},
            {"team": "speech"},
            {"a.b/c-d": 'x = 1, "y"', "team": "vision"},
            {},
        ]
        ids = [steps.submit(labels=each).id for each in given]
        page = steps.do(jobs.list_, LOCAL_ID, labels=labels)
        assert [ids.index(job.id) for job in page.items] == expected

    def test_pages_of_what_was_looked_for_go_on_behind_what_does_not_fit(self, steps: Steps) -> None:
        wanted = []
        for number in range(5):
            wanted.append(steps.submit(name="this", labels={"n": "1"}).id)
            steps.submit(name=f"other {number}", labels={"n": "1"})
            steps.submit(name="this")
        seen: list[str] = []
        cursor = None
        for size in (2, 2, 1):
            page = steps.do(
                jobs.list_,
                LOCAL_ID,
                name="This",
                labels=[("n", "1")],
                states=[JobState.QUEUED, JobState.FAILED],
                cursor=cursor,
                limit=2,
            )
            assert len(page.items) == size
            seen += [job.id for job in page.items]
            cursor = page.next_cursor
        assert (seen, cursor) == (wanted[::-1], None)


class TestEstimates:
    def test_there_is_none_before_a_like_job_has_succeeded(self, steps: Steps) -> None:
        steps.submit()
        assert steps.get(steps.claim().job_id).eta_seconds is None

    def test_a_running_job_is_told_what_its_remaining_stages_took_last_time(self, steps: Steps) -> None:
        steps.submit()
        seconds = {Stage.LOAD: 2.0, Stage.CALIBRATE: 30.0, Stage.COMPRESS: 10.0, Stage.UPLOAD: 1.0}
        steps.do(attempts.finish, steps.claim(), plan=PLAN, report=REPORT, artifacts=[], stage_seconds=seconds)
        steps.submit()
        claim = steps.claim()
        assert steps.get(claim.job_id).eta_seconds == pytest.approx(43.0)
        steps.do(attempts.record_progress, claim, Progress(Stage.CALIBRATE, 0.5))
        assert steps.get(claim.job_id).eta_seconds == pytest.approx(26.0)
        assert steps.submit().eta_seconds is None

    def test_a_sweep_is_none_to_judge_one_model_by(self, steps: Steps) -> None:
        steps.submit(recipe=SWEEP_RECIPE)
        steps.do(
            attempts.finish,
            steps.claim(),
            plan=[PLAN, PLAN],
            report=SWEEP_REPORT,
            artifacts=[],
            stage_seconds={Stage.COMPRESS: 600.0},
        )
        steps.submit()
        assert steps.get(steps.claim().job_id).eta_seconds is None
        steps.submit(recipe=SWEEP_RECIPE)
        assert steps.get(steps.claim().job_id).eta_seconds == pytest.approx(600.0)

    def test_a_job_with_another_fine_tuning_is_none_to_judge_by(self, steps: Steps) -> None:
        tuned = RECIPE.model_copy(update={"finetune": Finetune(epochs=3)})
        seconds = {Stage.CALIBRATE: 30.0, Stage.FINETUNE: 600.0, Stage.UPLOAD: 1.0}
        steps.submit(recipe=tuned)
        steps.do(attempts.finish, steps.claim(), plan=PLAN, report=REPORT, artifacts=[], stage_seconds=seconds)
        for recipe in (RECIPE, RECIPE.model_copy(update={"finetune": Finetune(epochs=5)})):
            steps.submit(recipe=recipe)
            assert steps.get(steps.claim().job_id).eta_seconds is None
        steps.submit(recipe=tuned)
        assert steps.get(steps.claim().job_id).eta_seconds == pytest.approx(631.0)

    def test_a_stage_that_knows_better_is_believed(self, steps: Steps) -> None:
        seconds = {Stage.FINETUNE: 600.0, Stage.UPLOAD: 7.0}
        steps.submit()
        steps.do(attempts.finish, steps.claim(), plan=PLAN, report=REPORT, artifacts=[], stage_seconds=seconds)
        steps.submit()
        claim = steps.claim()
        steps.do(attempts.record_progress, claim, Progress(Stage.FINETUNE, 0.5, loss=0.25, eta_seconds=31.0))
        assert steps.get(claim.job_id).eta_seconds == pytest.approx(38.0)


class TestAStageThatTrains:
    def test_tells_its_loss_and_the_time_left_while_it_lasts(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim()
        steps.do(attempts.record_progress, claim, Progress(Stage.FINETUNE, 0.5, loss=0.25, eta_seconds=31.0))
        assert (steps.get(job.id).stage_loss, steps.get(job.id).stage_eta_seconds) == (0.25, 31.0)
        last = steps.do(events.after, job.id)[-1]
        assert (last.loss, last.eta_seconds) == (0.25, 31.0)
        steps.do(attempts.record_progress, claim, Progress(Stage.EVALUATE, 0.0))
        assert (steps.get(job.id).stage_loss, steps.get(job.id).stage_eta_seconds) == (None, None)

    @pytest.mark.parametrize("end", [attempts.release, lambda session, claim: attempts.lose(session, claim, CRASH)])
    def test_tells_nothing_of_an_attempt_that_is_over(self, steps: Steps, end: Any) -> None:
        job = steps.submit()
        claim = steps.claim()
        steps.do(attempts.record_progress, claim, Progress(Stage.FINETUNE, 0.5, loss=0.25, eta_seconds=31.0))
        steps.do(end, claim)
        assert (steps.get(job.id).stage_loss, steps.get(job.id).stage_eta_seconds) == (None, None)

    def test_has_no_time_left_once_the_job_has_failed(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim()
        steps.do(attempts.record_progress, claim, Progress(Stage.FINETUNE, 0.5, loss=0.25, eta_seconds=31.0))
        steps.do(attempts.fail, claim, JobError("bad_dataset", "no image"))
        assert (steps.get(job.id).stage_loss, steps.get(job.id).stage_eta_seconds) == (0.25, None)


class TestCheckpoints:
    FILES = (
        CheckpointFile("a.json", 2, "aa", "jobs/1/checkpoint/attempt-1/aa"),
        CheckpointFile("b.json", 3, "bb", "jobs/1/checkpoint/attempt-1/bb"),
    )

    def test_are_what_was_recorded_last_and_outlive_the_attempt(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim()
        assert steps.do(attempts.checkpoint, job.id) == ()
        steps.do(attempts.record_checkpoint, claim, ())
        assert steps.do(attempts.checkpoint, job.id) == ()
        steps.do(attempts.record_checkpoint, claim, self.FILES[:1])
        steps.do(attempts.record_checkpoint, claim, self.FILES)
        steps.do(attempts.lose, claim, CRASH)
        steps.claim()
        assert steps.do(attempts.checkpoint, job.id) == self.FILES

    def test_are_not_recorded_by_an_attempt_that_lost_its_lease(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim()
        steps.do(attempts.record_checkpoint, claim, self.FILES)
        steps.do(attempts.lose, claim, CRASH)
        steps.claim()
        with pytest.raises(LeaseLostError):
            steps.do(attempts.record_checkpoint, claim, ())
        assert steps.do(attempts.checkpoint, job.id) == self.FILES

    def test_are_useless_once_the_job_has_ended_and_not_before(self, steps: Steps) -> None:
        without, waiting, failed, cancelled, succeeded = (steps.submit().id for _ in range(5))
        steps.do(attempts.fail, steps.claim(), CRASH)
        claims = [steps.claim() for _ in range(4)]
        for claim in claims:
            steps.do(attempts.record_checkpoint, claim, ())
        assert steps.do(upkeep.with_useless_checkpoint) == []
        steps.do(attempts.release, claims[0])
        steps.do(attempts.fail, claims[1], CRASH)
        steps.do(attempts.release, claims[2])
        steps.do(jobs.request_cancel, cancelled)
        finish(steps, claims[3])
        assert steps.do(upkeep.with_useless_checkpoint) == [failed, cancelled, succeeded]
        steps.do(upkeep.forget_checkpoint, failed)
        assert steps.do(upkeep.with_useless_checkpoint) == [cancelled, succeeded]
        assert steps.get(waiting).state is JobState.QUEUED
        assert steps.get(without).state is JobState.FAILED
