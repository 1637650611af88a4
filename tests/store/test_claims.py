"""Who gets which job, and that nobody else does."""

from collections import Counter
from itertools import pairwise

import pytest
from sqlalchemy import Engine

from core.progress import Progress, Stage
from steps import LEASE, Steps, at_once
from store import attempts, events, jobs, upkeep
from store.columns import uuid7
from store.errors import LeaseLostError
from store.session import transaction
from store.states import JobState, Queue
from store.values import Claim, Doorbell, JobError, Lease


class TestTheOrder:
    def test_priority_comes_first_then_age(self, steps: Steps) -> None:
        late = steps.submit(priority=-1)
        first, second = steps.submit(), steps.submit()
        urgent = steps.submit(priority=1)
        assert [steps.get(job.id).position for job in (urgent, first, second, late)] == [1, 2, 3, 4]
        assert [steps.claim().job_id for _ in range(4)] == [urgent.id, first.id, second.id, late.id]

    def test_a_lost_job_keeps_its_place_in_the_line(self, steps: Steps) -> None:
        first, _ = steps.submit(), steps.submit()
        steps.do(attempts.lose, steps.claim(), JobError("killed", "gone"))
        assert steps.claim().job_id == first.id

    def test_a_worker_claims_from_its_own_queues_alone(self, steps: Steps) -> None:
        steps.submit(queue=Queue.GPU)
        assert steps.do(attempts.claim, "worker-a", [Queue.CPU], LEASE) is None
        assert steps.claim(queues=(Queue.GPU, Queue.CPU)).attempt == 1

    def test_ids_are_ordered_by_time_even_within_a_millisecond(self) -> None:
        ids = [uuid7() for _ in range(1000)]
        assert len(set(ids)) == len(ids)
        assert sum(first > second for first, second in pairwise(ids)) < 10
        assert {id_[14] for id_ in ids} == {"7"}


class TestManyWorkersAtOnce:
    def test_no_job_is_claimed_twice_and_none_is_left(self, database: Engine, steps: Steps) -> None:
        submitted = {steps.submit().id for _ in range(24)}
        claimed: list[str] = []

        def work(index: int) -> None:
            while True:
                with transaction(database) as session:
                    claim = attempts.claim(session, f"worker-{index}", [Queue.CPU], LEASE)
                if claim is None:
                    return
                claimed.append(claim.job_id)

        at_once(8, work)
        assert Counter(claimed) == Counter(submitted)

    def test_one_job_goes_to_one_of_them(self, database: Engine, steps: Steps) -> None:
        job = steps.submit()
        claims: list[object] = []

        def work(index: int) -> None:
            with transaction(database) as session:
                claims.append(attempts.claim(session, f"worker-{index}", [Queue.CPU], LEASE))

        at_once(8, work)
        assert len([claim for claim in claims if claim]) == 1
        assert steps.get(job.id).attempt == 1

    def test_a_cancel_and_a_claim_never_both_win(self, database: Engine, steps: Steps) -> None:
        for _ in range(10):
            job = steps.submit()
            claims: list[object] = []

            def work(index: int, job_id: str = job.id, claims: list[object] = claims) -> None:
                with transaction(database) as session:
                    if index:
                        jobs.request_cancel(session, job_id)
                    else:
                        claims.append(attempts.claim(session, "worker-a", [Queue.CPU], LEASE))

            at_once(2, work)
            assert steps.get(job.id).state is (JobState.CANCELLING if claims[0] else JobState.CANCELLED)


class TestTheFence:
    @pytest.fixture
    def stale(self, steps: Steps) -> Claim:
        """A claim whose job another worker holds by now."""
        steps.submit()
        claim = steps.claim_lapsed()
        assert steps.do(upkeep.sweep_expired) == [claim.job_id]
        steps.claim()
        return claim

    def test_a_stale_attempt_hears_that_it_has_lost(self, steps: Steps, stale: Claim) -> None:
        assert steps.do(attempts.heartbeat, stale, LEASE) is Lease.LOST

    def test_a_stale_attempt_can_write_nothing(self, steps: Steps, stale: Claim) -> None:
        before = steps.get(stale.job_id), steps.do(events.after, stale.job_id)
        with pytest.raises(LeaseLostError):
            steps.do(attempts.record_progress, stale, Progress(Stage.UPLOAD, 1.0))
        with pytest.raises(LeaseLostError):
            steps.do(attempts.fail, stale, JobError("internal", "late"))
        assert steps.do(attempts.lose, stale, JobError("killed", "late")) is None
        assert steps.do(attempts.release, stale) is None
        steps.do(attempts.end_cancelled, stale)
        assert (steps.get(stale.job_id), steps.do(events.after, stale.job_id)) == before


class TestLeases:
    def test_a_heartbeat_moves_the_end_of_the_lease(self, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim_lapsed()
        assert steps.do(attempts.heartbeat, claim, LEASE) is Lease.HELD
        assert steps.do(upkeep.sweep_expired) == []

    def test_a_lapsed_lease_gives_the_job_back(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim_lapsed()
        assert steps.do(upkeep.sweep_expired) == [claim.job_id]
        assert steps.get(job.id).state is JobState.QUEUED
        assert steps.do(upkeep.sweep_expired) == []

    def test_the_last_attempt_fails_the_job_by_name(self, steps: Steps) -> None:
        job = steps.submit(max_attempts=1)
        steps.claim_lapsed()
        steps.do(upkeep.sweep_expired)
        swept = steps.get(job.id)
        assert swept.state is JobState.FAILED
        assert swept.error is not None
        assert swept.error.code == "attempts_exhausted"

    def test_a_job_that_was_to_be_cancelled_is_cancelled_even_on_its_last_attempt(self, steps: Steps) -> None:
        job = steps.submit(max_attempts=1)
        steps.claim_lapsed()
        steps.do(jobs.request_cancel, job.id)
        steps.do(upkeep.sweep_expired)
        assert (steps.get(job.id).state, steps.get(job.id).error) == (JobState.CANCELLED, None)

    def test_sweeps_at_once_end_each_attempt_once(self, database: Engine, steps: Steps) -> None:
        submitted = sorted(steps.submit().id for _ in range(12))
        for _ in submitted:
            steps.claim_lapsed()
        swept: list[str] = []

        def work(_: int) -> None:
            with transaction(database) as session:
                swept.extend(upkeep.sweep_expired(session))

        at_once(4, work)
        assert sorted(swept) == submitted


class TestDoorbells:
    def test_a_new_job_counts_as_rung(self, steps: Steps) -> None:
        steps.submit()
        assert steps.do(upkeep.unrung) == []

    def test_a_job_that_came_back_is_rung_once_at_the_next_sweep(self, steps: Steps) -> None:
        for come_back in (
            attempts.release,
            lambda session, claim: attempts.lose(session, claim, JobError("killed", "gone")),
        ):
            job = steps.submit(queue=Queue.GPU)
            steps.do(come_back, steps.claim((Queue.GPU,)))
            assert steps.do(upkeep.unrung) == [Doorbell(job.id, Queue.GPU)]
            assert steps.do(upkeep.unrung) == []
            steps.do(jobs.request_cancel, job.id)

    def test_a_long_line_rings_for_its_head_alone(self, steps: Steps) -> None:
        head = [steps.submit().id for _ in range(5)][:3]
        for claim in [steps.claim() for _ in range(5)]:
            steps.do(attempts.release, claim)
        bells = steps.do(upkeep.unrung, limit=3)
        assert sorted(bell.job_id for bell in bells) == head

    def test_a_running_job_is_not_rung_for(self, steps: Steps) -> None:
        steps.submit()
        steps.do(attempts.release, steps.claim())
        steps.claim()
        assert steps.do(upkeep.unrung) == []
