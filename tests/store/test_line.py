"""Whose turn it is, against a plain model of it, and exactly so when many ask at once."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from steps import LEASE, Steps, at_once
from store import attempts, checks, jobs, line, owners, workers
from store.columns import uuid7
from store.errors import DailyLimitError
from store.owners import LOCAL
from store.session import transaction
from store.states import JobKind, Queue
from store.tables import Job, Owner
from store.values import Claim, Fitness, JobError, JobView, Limits, Place

EVERYTHING = (Queue.CPU, Queue.GPU)
BIG = Fitness(frozenset({"a100", "fast"}), 80)


def an_owner(steps: Steps, name: str, **limits: int) -> Place:
    return steps.do(owners.create, name, Limits(**limits))


def claim(steps: Steps, worker: str = "worker-a", fitness: Fitness = BIG) -> Claim | None:
    return steps.do(attempts.claim, worker, EVERYTHING, LEASE, fitness)


def claimed(steps: Steps, count: int) -> list[str]:
    return [each.job_id for each in (claim(steps) for _ in range(count)) if each]


class TestFairness:
    def test_one_owner_s_sweep_does_not_keep_another_waiting(self, steps: Steps) -> None:
        many, one = an_owner(steps, "many"), an_owner(steps, "one")
        for _ in range(5):
            steps.submit(place=many, priority=10)
        [first] = claimed(steps, 1)
        single = steps.submit(place=one)
        assert steps.get(single.id).position == 1
        assert claimed(steps, 1) == [single.id]
        assert steps.get(first).owner_id == many.owner_id

    def test_of_owners_with_as_many_running_the_one_served_longest_ago_is_next(self, steps: Steps) -> None:
        places = [an_owner(steps, name) for name in ("a", "b", "c")]
        ids = {place.owner_id: [steps.submit(place=place).id for _ in range(3)] for place in reversed(places)}
        served = [steps.get(each).owner_id for each in claimed(steps, 9)]
        assert served == served[:3] * 3
        assert set(served) == set(ids)

    def test_a_check_comes_before_the_compressions_of_its_owner(self, steps: Steps) -> None:
        steps.submit(priority=checks.PRIORITY - 1)
        check = steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, uuid7())
        assert claimed(steps, 1) == [check]


class TestLimits:
    def test_no_more_than_max_running_run_and_the_next_starts_when_one_ends(self, steps: Steps) -> None:
        limited = an_owner(steps, "limited", max_running=2)
        ids = [steps.submit(place=limited).id for _ in range(4)]
        held = [claim(steps) for _ in range(3)]
        assert [each and each.job_id for each in held] == [*ids[:2], None]
        steps.do(attempts.fail, held[0], JobError("internal", "broken"))
        assert claimed(steps, 2) == [ids[2]]

    def test_hold_exactly_when_workers_claim_at_once(self, database: Engine, steps: Steps) -> None:
        limited, other = an_owner(steps, "limited", max_running=3), an_owner(steps, "other", max_running=1)
        for place in (limited, other):
            for _ in range(10):
                steps.submit(place=place)
        claims: list[Claim] = []

        def work(index: int) -> None:
            with transaction(database) as session:
                taken = attempts.claim(session, f"worker-{index}", EVERYTHING, LEASE)
            if taken:
                claims.append(taken)

        at_once(8, work)
        counts = Counter(steps.get(each.job_id).owner_id for each in claims)
        assert counts == {limited.owner_id: 3, other.owner_id: 1}

    def test_the_daily_limit_holds_exactly_when_jobs_come_at_once(self, database: Engine, steps: Steps) -> None:
        limited = an_owner(steps, "limited", max_daily=5)
        refused: list[DailyLimitError] = []

        def work(_: int) -> None:
            try:
                steps.submit(place=limited)
            except DailyLimitError as error:
                refused.append(error)

        at_once(8, work)
        assert [(error.limit, 86_000 < error.retry_after_seconds <= 86_400) for error in refused] == [(5, True)] * 3

    def test_a_day_later_there_is_room_again(self, steps: Steps) -> None:
        limited = an_owner(steps, "limited", max_daily=1)
        job = steps.submit(place=limited)
        steps.do(
            lambda session: session.execute(
                update(Job).where(Job.id == job.id).values(created_at=job.created_at - jobs.DAY)
            )
        )
        steps.submit(place=limited)
        with pytest.raises(DailyLimitError):
            steps.submit(place=limited)


class TestFitting:
    def test_a_tag_and_memory_must_be_there(self, steps: Steps) -> None:
        steps.submit(device_tag="a100", memory_bytes=50)
        assert claim(steps, fitness=Fitness(frozenset({"fast"}), 80)) is None
        assert claim(steps, fitness=Fitness(frozenset({"a100"}), 49)) is None
        assert claim(steps, fitness=Fitness(frozenset({"a100"}), 50)) is not None

    def test_what_does_not_fit_keeps_nobody_else_waiting(self, steps: Steps) -> None:
        steps.submit(memory_bytes=100, priority=5)
        small = steps.submit(memory_bytes=10)
        assert claimed(steps, 1) == [small.id]

    def test_a_draining_worker_gets_nothing_until_it_is_resumed(self, steps: Steps) -> None:
        steps.submit()
        steps.do(workers.sign_on, "worker-a", EVERYTHING)
        steps.do(workers.set_draining, "worker-a", True)
        assert claim(steps) is None
        assert claim(steps, "worker-b") is not None
        steps.submit()
        steps.do(workers.set_draining, "worker-a", False)
        assert claim(steps) is not None

    def test_a_worker_that_starts_again_is_not_draining(self, steps: Steps) -> None:
        steps.do(workers.sign_on, "worker-a", EVERYTHING)
        steps.do(workers.set_draining, "worker-a", True)
        steps.do(workers.sign_on, "worker-a", EVERYTHING)
        assert steps.do(workers.list_)[0].draining is False


@dataclass
class Model:
    """The claim order in plain Python. When an owner was last served, the database alone knows."""

    waiting: dict[str, JobView] = field(default_factory=dict)
    running: dict[str, Claim] = field(default_factory=dict)
    owner_of: dict[str, str] = field(default_factory=dict)
    max_running: dict[str, int | None] = field(default_factory=dict)

    def runs(self, owner: str) -> int:
        return sum(self.owner_of[job_id] == owner for job_id in self.running)

    def next(self, queues: tuple[Queue, ...], fitness: Fitness, served: dict[str, datetime | None]) -> str | None:
        def key(job: JobView) -> tuple[object, ...]:
            at = served[job.owner_id]
            return self.runs(job.owner_id), at is not None, at, job.owner_id, -job.priority, job.id

        able = [
            job
            for job in self.waiting.values()
            if job.queue in queues
            and (job.device_tag is None or job.device_tag in fitness.tags)
            and (None in (job.memory_bytes, fitness.memory_bytes) or job.memory_bytes <= fitness.memory_bytes)  # type: ignore[operator]
            and ((limit := self.max_running[job.owner_id]) is None or self.runs(job.owner_id) < limit)
        ]
        return min(able, key=key).id if able else None


class TestAgainstAPlainModel:
    @pytest.mark.parametrize("seed", range(4))
    def test_every_claim_takes_what_the_model_takes(self, steps: Steps, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        model = Model()
        limits = [None, 1, 2, 3]
        places = [
            an_owner(steps, f"owner-{index}", **({"max_running": limit} if limit else {}))
            for index, limit in enumerate(limits)
        ]
        model.max_running = {place.owner_id: limit for place, limit in zip(places, limits, strict=True)}
        for _ in range(60):
            move = dice.random()
            if move < 0.5 or not model.waiting:
                job = steps.submit(
                    place=dice.choice(places),
                    queue=dice.choice(EVERYTHING),
                    priority=dice.randint(-1, 1),
                    device_tag=dice.choice([None, None, "a100", "fast"]),
                    memory_bytes=dice.choice([None, 10, 50, 100]),
                )
                model.waiting[job.id], model.owner_of[job.id] = job, job.owner_id
            elif move < 0.8 or not model.running:
                queues = dice.choice([(Queue.CPU,), EVERYTHING])
                fitness = dice.choice([Fitness(), BIG, Fitness(frozenset({"fast"}), 49)])
                served = steps.do(served_at)
                expected = model.next(queues, fitness, served)
                taken = steps.do(attempts.claim, "worker-a", queues, LEASE, fitness)
                assert (taken and taken.job_id) == expected
                if taken:
                    model.running[taken.job_id] = taken
                    del model.waiting[taken.job_id]
            else:
                job_id = dice.choice(sorted(model.running))
                steps.do(attempts.fail, model.running.pop(job_id), JobError("internal", "broken"))

    @pytest.mark.parametrize("seed", range(3))
    def test_positions_are_the_order_of_the_claims_to_come(self, steps: Steps, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311
        limits = [None, 2, 4]
        places = [
            an_owner(steps, f"owner-{index}", **({"max_running": limit} if limit else {}))
            for index, limit in enumerate(limits)
        ]

        def submit(count: int) -> list[str]:
            return [steps.submit(place=dice.choice(places), priority=dice.randint(-1, 1)).id for _ in range(count)]

        submit(6)
        claimed(steps, 4)
        submit(15)
        waiting = steps.do(lambda session: list(session.scalars(select(Job.id).where(Job.state == "queued"))))
        positions = steps.do(line.positions, waiting)
        assert sorted(positions.values()) == list(range(1, len(waiting) + 1))
        taken = claimed(steps, len(waiting))
        assert [positions[each] for each in taken] == list(range(1, len(taken) + 1))


def served_at(session: Session) -> dict[str, datetime | None]:
    return {row.id: row.claimed_at for row in session.execute(select(Owner.id, Owner.claimed_at))}
