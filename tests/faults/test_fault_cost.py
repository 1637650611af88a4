"""What a soak tells of its cost."""

from datetime import UTC, datetime, timedelta

import pytest
from crew import Death, cost, quantile
from history import Moment, Past

from store.states import EventKind, JobKind, JobState

START = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def past(job_id: str, *moments: tuple[JobState, int, float]) -> Past:
    told = tuple(Moment(EventKind.STATE, state, attempt, after(at)) for state, attempt, at in moments)
    state, attempt, _ = moments[-1]
    return Past(job_id, JobKind.CHECK_DATASET, state, attempt, 3, False, False, (), told)


LOST = past(
    "lost",
    (JobState.QUEUED, 0, 0),
    (JobState.RUNNING, 1, 1),
    (JobState.QUEUED, 1, 25),
    (JobState.RUNNING, 2, 31),
    (JobState.SUCCEEDED, 2, 38),
)
SPARED = past("spared", (JobState.QUEUED, 0, 0), (JobState.RUNNING, 1, 2), (JobState.SUCCEEDED, 1, 11))


class TestTheCost:
    def test_of_a_death_is_the_time_until_somebody_noticed_and_began_again(self) -> None:
        spent = cost([Death("lost", after(5))], [LOST, SPARED])
        assert (spent.noticed, spent.restarts) == ([20.0], [26.0])
        assert spent.redone == pytest.approx(4 / (4 + 7 + 9))

    def test_of_a_death_that_came_when_all_was_written_is_none(self) -> None:
        spent = cost([Death("spared", after(12))], [LOST, SPARED])
        assert (spent.noticed, spent.restarts, spent.redone) == ([], [], 0.0)


class TestAQuantile:
    def test_is_one_of_the_values(self) -> None:
        assert [quantile([3.0, 1.0, 2.0], each) for each in (0.0, 0.5, 0.99, 1.0)] == [1.0, 2.0, 3.0, 3.0]
        assert quantile([], 0.5) == 0.0
