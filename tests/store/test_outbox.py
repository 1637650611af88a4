"""What webhooks are told, as rows, on both databases."""

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from steps import Steps
from store import attempts, jobs, outbox, owners, webhooks
from store.errors import TooManyWebhooksError, WebhookNotFoundError
from store.outbox import BACKOFF, JITTER, Letter, Signal
from store.owners import LOCAL
from store.session import now, session_factory, transaction
from store.values import JobError
from store.webhooks import DeliveryView

HOLD = timedelta(seconds=60)
URL = "https://hooks.test/"


def listen(steps: Steps, *events: Signal, owner_id: str = LOCAL.owner_id, project_id: str | None = None) -> str:
    wanted = events or tuple(Signal)
    return steps.do(webhooks.create, owner_id, url=URL, events=wanted, project_id=project_id)[0]


def told(steps: Steps, webhook_id: str, owner_id: str = LOCAL.owner_id) -> list[DeliveryView]:
    """Oldest first."""
    return list(reversed(steps.do(webhooks.deliveries, owner_id, webhook_id).items))


def take(steps: Steps) -> Letter:
    letter = steps.do(outbox.take, HOLD)
    assert letter is not None
    return letter


def make_due(database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE deliveries SET next_attempt_at = created_at WHERE next_attempt_at IS NOT NULL"))


class TestAnnouncing:
    def test_every_step_of_a_job_is_told(self, steps: Steps) -> None:
        hook = listen(steps)
        job = steps.submit(name="half", labels={"team": "vision"})
        steps.do(attempts.fail, steps.claim(), JobError("bad_dataset", "empty"))
        started, failed = told(steps, hook)
        assert (started.event, failed.event) == ("job.started", "job.failed")
        assert failed.payload["type"] == "job.failed"
        data: dict[str, Any] = failed.payload["data"]
        assert (data["job_id"], data["project"], data["state"], data["attempt"]) == (job.id, "default", "failed", 1)
        assert (data["name"], data["labels"]) == ("half", {"team": "vision"})
        assert data["error"] == {"code": "bad_dataset", "message": "empty"}
        assert data["finished_at"] is not None

    def test_a_cancelled_one_too_and_only_what_is_listened_to(self, steps: Steps) -> None:
        hook, other = listen(steps, Signal.JOB_CANCELLED), listen(steps, Signal.JOB_SUCCEEDED)
        job = steps.submit()
        steps.do(jobs.request_cancel, job.id)
        assert [each.event for each in told(steps, hook)] == ["job.cancelled"]
        assert told(steps, other) == []

    def test_what_is_rolled_back_is_not_told(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        job = steps.submit()
        with session_factory(bind=database) as session:
            jobs.request_cancel(session, job.id)
            session.rollback()
        assert told(steps, hook) == []

    def test_no_other_owner_hears_of_it_nor_of_another_project(self, steps: Steps) -> None:
        there = steps.do(owners.create, "anna")
        other = listen(steps, owner_id=there.owner_id)
        steps.do(owners.create_project, LOCAL.owner_id, "lenses")
        lenses = steps.do(owners.place, LOCAL.owner_id, "lenses")
        of_lenses, of_all = listen(steps, project_id=lenses.project_id), listen(steps)
        for place in (LOCAL, lenses):
            steps.do(jobs.request_cancel, steps.submit(place=place).id)
        assert [each.payload["data"]["project"] for each in told(steps, of_lenses)] == ["lenses"]
        assert [each.payload["data"]["project"] for each in told(steps, of_all)] == ["default", "lenses"]
        assert told(steps, other, there.owner_id) == []

    def test_a_disabled_one_hears_nothing_and_gives_up_what_waits(self, steps: Steps) -> None:
        hook = listen(steps)
        first, second = steps.submit(), steps.submit()
        steps.do(jobs.request_cancel, first.id)
        steps.do(webhooks.change, LOCAL.owner_id, hook, enabled=False)
        steps.do(jobs.request_cancel, second.id)
        [given_up] = told(steps, hook)
        assert (given_up.next_attempt_at, given_up.error) == (None, "the webhook was disabled")

    def test_a_webhook_deleted_meanwhile_does_not_keep_a_job_from_ending(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        job = steps.submit()
        with transaction(database) as session:
            jobs.request_cancel(session, job.id)
            deleting = threading.Thread(target=steps.do, args=[webhooks.remove, LOCAL.owner_id, hook])
            deleting.start()
        deleting.join(20)
        assert not deleting.is_alive()
        assert steps.get(job.id).state.is_final
        with pytest.raises(WebhookNotFoundError):
            told(steps, hook)


class TestTaking:
    def test_one_is_taken_once_until_the_hold_is_over(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        steps.do(webhooks.test, LOCAL.owner_id, hook)
        letter = take(steps)
        assert steps.do(outbox.take, HOLD) is None
        assert json.loads(letter.body) == told(steps, hook)[0].payload
        make_due(database)
        again = take(steps)
        assert (again.delivery_id, again.attempt, again.body) == (letter.delivery_id, 2, letter.body)

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
    def test_two_that_take_at_once_take_different_ones(self, database: Engine, steps: Steps) -> None:
        for _ in range(2):
            steps.do(webhooks.test, LOCAL.owner_id, listen(steps))
        with transaction(database) as one, transaction(database) as other:
            first, second = outbox.take(one, HOLD), outbox.take(other, HOLD)
        assert first is not None
        assert second is not None
        assert first.delivery_id != second.delivery_id

    def test_a_webhook_that_is_busy_is_passed_over(self, steps: Steps) -> None:
        busy, other = listen(steps), listen(steps)
        for hook in (busy, other):
            steps.do(webhooks.test, LOCAL.owner_id, hook)
        letter = steps.do(outbox.take, HOLD, {busy})
        assert letter is not None
        assert letter.webhook_id == other
        assert not steps.do(outbox.is_due, {busy})


class TestSettling:
    def test_failures_are_tried_again_ever_later_and_then_given_up(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        steps.do(webhooks.test, LOCAL.owner_id, hook)
        for backoff in BACKOFF:
            letter = take(steps)
            at = steps.do(now)
            steps.do(outbox.settle, letter, 500, "HTTP 500 no")
            [row] = told(steps, hook)
            assert row.next_attempt_at is not None
            wait = row.next_attempt_at - at
            slack = timedelta(seconds=1)
            assert backoff * (1 - JITTER) - slack <= wait <= backoff * (1 + JITTER) + slack
            make_due(database)
        steps.do(outbox.settle, take(steps), None, "no answer within 10 s")
        [row] = told(steps, hook)
        assert (row.attempts, row.next_attempt_at, row.delivered_at) == (len(BACKOFF) + 1, None, None)
        assert (row.status, row.error) == (None, "no answer within 10 s")

    def test_a_sender_that_is_late_writes_nothing(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        steps.do(webhooks.test, LOCAL.owner_id, hook)
        late = take(steps)
        make_due(database)
        steps.do(outbox.settle, take(steps), 204, None)
        steps.do(outbox.settle, late, 500, "HTTP 500")
        [row] = told(steps, hook)
        assert (row.status, row.error, row.next_attempt_at) == (204, None, None)
        assert row.delivered_at is not None

    def test_a_receiver_that_is_gone_is_told_no_more(self, steps: Steps) -> None:
        hook = listen(steps)
        for _ in range(2):
            steps.do(webhooks.test, LOCAL.owner_id, hook)
        steps.do(outbox.settle, take(steps), 410, "HTTP 410")
        assert steps.do(webhooks.get, LOCAL.owner_id, hook).disabled_at is not None
        assert not steps.do(outbox.is_due)

    def test_one_is_sent_again_when_somebody_asks(self, steps: Steps) -> None:
        hook = listen(steps)
        steps.do(webhooks.test, LOCAL.owner_id, hook)
        letter = take(steps)
        steps.do(outbox.settle, letter, 200, None)
        assert steps.do(webhooks.redeliver, LOCAL.owner_id, hook, letter.delivery_id).attempts == 0
        assert take(steps).delivery_id == letter.delivery_id

    def test_the_log_is_kept_for_a_month(self, database: Engine, steps: Steps) -> None:
        hook = listen(steps)
        for _ in range(3):
            steps.do(webhooks.test, LOCAL.owner_id, hook)
        steps.do(outbox.settle, take(steps), 200, None)
        steps.do(outbox.settle, take(steps), 200, None)
        rows = told(steps, hook)
        with database.begin() as connection:
            old = "UPDATE deliveries SET created_at = '2020-01-01 00:00:00' WHERE id <> :id"
            connection.execute(text(old), {"id": rows[0].id})
        steps.do(outbox.forget_old)
        assert {row.id for row in told(steps, hook)} == {rows[0].id, rows[2].id}  # the last one is still to be sent


class TestLimits:
    def test_an_owner_has_only_so_many(self, steps: Steps) -> None:
        for _ in range(webhooks.MOST):
            listen(steps)
        with pytest.raises(TooManyWebhooksError):
            listen(steps)
