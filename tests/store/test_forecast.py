"""When waiting jobs start and end, and what they wait for."""

from datetime import UTC, datetime, timedelta

from examples import PLAN, RECIPE, REPORT
from steps import LEASE, Steps
from store import attempts, forecast, owners, workers
from store.forecast import NEVER, Line, Slot, Waiting, play_out
from store.line import LONG_AGO
from store.states import JobState, Queue
from store.tables import LOCAL_ID
from store.values import Fitness, Limits, QueuedJob, WaitingFor, WorkerView

MINUTE = timedelta(minutes=1)


def own(steps: Steps, owner_id: str = LOCAL_ID, limit: int = 100) -> dict[str, QueuedJob]:
    return {job.id: job for job in steps.do(forecast.own, owner_id, MINUTE, limit)}


def finish(steps: Steps, seconds: float, worker: str = "worker-a") -> None:
    claim = steps.do(attempts.claim, worker, [Queue.CPU], LEASE)
    assert claim is not None
    stages = {"calibrate": seconds / 4, "compress": seconds * 3 / 4}
    steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[], stage_seconds=stages)


def seconds_to(job: QueuedJob) -> tuple[float, float]:
    """How long until it starts, and from there to its end."""
    assert job.estimated_start is not None
    assert job.estimated_end is not None
    start = (job.estimated_start - datetime.now(UTC)).total_seconds()
    return start, (job.estimated_end - job.estimated_start).total_seconds()


class TestTheForecastOfAQueue:
    def test_goes_by_what_a_like_job_took(self, steps: Steps) -> None:
        steps.do(workers.sign_on, "worker-a", [Queue.CPU])
        for model, seconds in (("a", 40.0), ("b", 1000.0)):
            steps.submit(model=model)
            finish(steps, seconds)
        first, second = steps.submit(model="a"), steps.submit(model="a")
        found = own(steps)
        assert [found[job.id].position for job in (first, second)] == [1, 2]
        (start, length), (later, _) = seconds_to(found[first.id]), seconds_to(found[second.id])
        assert (abs(start) < 5, length, abs(later - 40) < 5) == (True, 40.0, True)

    def test_goes_by_the_model_then_by_any_job_where_none_was_like_it(self, steps: Steps) -> None:
        steps.do(workers.sign_on, "worker-a", [Queue.CPU])
        for model, seconds in (("a", 40.0), ("b", 1000.0)):
            steps.submit(model=model)
            finish(steps, seconds)
        longer = steps.submit(model="a", recipe=RECIPE.model_copy(update={"target_ratio": None, "target_macs": 0.5}))
        other = steps.submit(model="c")
        found = own(steps)
        assert seconds_to(found[longer.id])[1] == 40.0
        assert seconds_to(found[other.id])[1] == 520.0

    def test_tells_nothing_where_nothing_was_measured(self, steps: Steps) -> None:
        steps.do(workers.sign_on, "worker-a", [Queue.CPU])
        first, second = steps.submit(), steps.submit()
        found = own(steps)
        assert found[first.id].estimated_start is not None
        assert found[first.id].estimated_end is None
        assert (found[second.id].estimated_start, found[second.id].waiting_for) == (None, WaitingFor.TURN)

    def test_another_owner_s_own_model_is_no_measure(self, steps: Steps) -> None:
        other = steps.do(owners.create, "other")
        steps.do(workers.sign_on, "worker-a", [Queue.CPU])
        steps.submit(model="own:vit")
        finish(steps, 40.0)
        steps.submit(model="b")
        finish(steps, 10.0)
        job = steps.submit(model="own:vit", place=other)
        assert seconds_to(own(steps, other.owner_id)[job.id])[1] == 25.0  # as any job

    def test_a_running_job_has_started_and_leads(self, steps: Steps) -> None:
        steps.do(workers.sign_on, "worker-a", [Queue.CPU])
        steps.submit()
        finish(steps, 40.0)
        first, second = steps.submit(), steps.submit()
        claim = steps.claim()
        assert claim.job_id == first.id
        found = own(steps)
        assert list(found) == [first.id, second.id]
        assert found[first.id].state is JobState.RUNNING
        assert (found[first.id].position, found[first.id].waiting_for) == (None, None)
        assert abs(seconds_to(found[second.id])[0] - 40) < 10

    def test_says_what_a_job_waits_for(self, steps: Steps) -> None:
        limited = steps.do(owners.create, "limited", Limits(max_running=1))
        steps.do(workers.sign_on, "worker-a", [Queue.CPU], Fitness(frozenset({"fast"}), 100))
        jobs = {
            WaitingFor.TURN: steps.submit(place=limited, priority=9, memory_bytes=100, device_tag="fast"),
            WaitingFor.LIMIT: steps.submit(place=limited),
            WaitingFor.MEMORY: steps.submit(place=limited, memory_bytes=101),
            WaitingFor.TAG: steps.submit(place=limited, device_tag="a100"),
            WaitingFor.WORKER: steps.submit(place=limited, queue=Queue.GPU),
        }
        found = own(steps, limited.owner_id)
        assert {reason: found[job.id].waiting_for for reason, job in jobs.items()} == {each: each for each in jobs}
        steps.do(workers.set_draining, "worker-a", True)
        assert {job.waiting_for for job in own(steps, limited.owner_id).values()} == {WaitingFor.WORKER}

    def test_lists_no_more_than_it_is_asked_for_and_nobody_else_s(self, steps: Steps) -> None:
        other = steps.do(owners.create, "other")
        ids = [steps.submit().id for _ in range(4)]
        steps.submit(place=other)
        assert list(own(steps, limit=3)) == ids[:3]


class TestPlayingOut:
    def test_owners_take_turns_and_limits_hold(self) -> None:
        lines = [Line("a", 1, 0, LONG_AGO), Line("b", None, 0, LONG_AGO)]
        slots = [Slot(worker(name), 0.0, None) for name in ("w1", "w2")]
        planned = play_out([waiting("a1", "a", 7), waiting("a2", "a", 7), waiting("b1", "b", 3)], lines, slots)
        assert planned == {"a1": (0, 7), "b1": (0, 3), "a2": (7, 14)}

    def test_a_job_waits_for_the_worker_that_it_needs(self) -> None:
        slots = [Slot(worker("w1"), 0.0, None), Slot(worker("w2", tags=("a100",)), 11.0, "a")]
        jobs = [waiting("a1", "a", 2, tag="a100"), waiting("a2", "a", 2)]
        assert play_out(jobs, [Line("a", None, 1, LONG_AGO)], slots) == {"a2": (0, 2), "a1": (11, 13)}

    def test_behind_a_job_of_unknown_length_nothing_is_known(self) -> None:
        jobs = [waiting("a1", "a", NEVER), waiting("a2", "a", 2)]
        slots = [Slot(worker("w1"), 0.0, None), Slot(worker("w2"), NEVER, "a")]
        assert play_out(jobs, [Line("a", None, 1, LONG_AGO)], slots) == {"a1": (0, NEVER)}


def waiting(job_id: str, owner_id: str, seconds: float, tag: str | None = None) -> Waiting:
    return Waiting(job_id, owner_id, Queue.CPU, 0, tag, None, seconds)


def worker(name: str, tags: tuple[str, ...] = ()) -> WorkerView:
    return WorkerView(name, (Queue.CPU,), tags, "", None, None, False, datetime.now(UTC), 0.0, None)
