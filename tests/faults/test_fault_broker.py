"""A broker that is restarted, emptied, paused or away, and messages that nobody of us sent. Real processes: an API, two
workers, PostgreSQL and a Valkey. No job is lost, none is done twice, and the workers are the same at the end.
"""

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psutil
import pytest
from broker import Broker
from figures import Figures
from history import judge, read
from house import SECONDS, House
from sqlalchemy import select

import processes
import services
from steps import Steps
from store import queue, workers
from store.settings import Settings
from store.states import JobState, Queue
from store.tables import Job

ACCEPTED_SECONDS = 10  # what is promised is two; a busy machine is given more
PAUSE_SECONDS = 30  # of the long form
# Nothing dies here, so nothing has to be noticed soon; and nobody may be taken for dead because the machine is busy.
PATIENT = {"VITPRESS_LEASE_SECONDS": "60", "VITPRESS_HEARTBEAT_SECONDS": "2"}
NAMES = ("one", "other")  # of the workers
UNTAKEN = {"device_tag": "a-tag-that-no-worker-has"}


@dataclass
class Service:
    house: House
    broker: Broker
    steps: Steps
    settings: Settings
    workers: Sequence["subprocess.Popen[bytes]"]
    accepted: list[str]

    def submit(self, count: int) -> list[str]:
        """Ids of accepted jobs of a second each."""
        ids = [self.house.submit_check(f"set-{len(self.accepted) + index}") for index in range(count)]
        self.accepted += ids
        return ids

    def wait_for(self, ids: Sequence[str], state: JobState) -> None:
        def are_there() -> bool:
            rows = select(Job.state).where(Job.id.in_(ids))
            return self.steps.do(lambda session: set(session.scalars(rows))) == {state}

        services.wait_until(are_there, SECONDS)

    def deliver(self, message: bytes) -> None:
        with self.broker.client() as client:
            client.lpush(Queue.CPU, message)

    def wait_until_heard(self) -> None:
        """All that was in the queue, and has not come back."""

        def is_heard() -> bool:
            with self.broker.client() as client:
                return not (client.llen(Queue.CPU) or client.hlen("unacked"))

        services.wait_until(is_heard, SECONDS)

    def told(self, words: str) -> int:
        """How often, by either worker."""
        return sum(self.house.log(name).read_text().count(words) for name in NAMES)

    @contextmanager
    def running(self, count: int) -> Iterator[list[str]]:
        """As many jobs, each on a worker of its own, that are not done before the end of this context."""
        ids = self.submit(count)
        with ExitStack() as stack:
            for job_id in ids:
                runner = processes.runner_of(psutil.Process().pid, job_id, SECONDS)
                runner.suspend()
                stack.callback(runner.resume)
            self.wait_for(ids, JobState.RUNNING)
            yield ids

    def assert_done_once(self, ids: Sequence[str]) -> None:
        self.wait_for(ids, JobState.SUCCEEDED)
        verdict = judge(ids, read(self.house.database()))
        assert verdict.is_clean, verdict
        assert [len(past.starts()) for past in read(self.house.database()) if past.job_id in ids] == [1] * len(ids)
        assert [worker.poll() for worker in self.workers] == [None, None]


@pytest.fixture(scope="module")
def service(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("house")
    with (
        services.new_database(postgres_server) as database_url,
        Broker(tmp_path_factory.mktemp("broker")) as broker,
        House(database_url, broker.url, directory, **PATIENT) as house,
    ):
        house.migrate()
        steps = Steps(house.database())
        with house.api(), ExitStack() as stack:
            started = [stack.enter_context(house.worker(name)) for name in NAMES]
            services.wait_until(lambda: len(steps.do(workers.list_)) == 2, SECONDS)
            yield Service(house, broker, steps, Settings(broker_url=broker.url), started, [])


class TestABroker:
    def test_that_is_restarted_costs_no_job_and_none_is_refused_meanwhile(
        self, service: Service, figures: Figures
    ) -> None:
        with service.running(2) as running:
            service.broker.stop()
            began = time.monotonic()
            waiting = service.submit(1)
            took = time.monotonic() - began
            service.broker.start()
        back = time.monotonic()
        service.assert_done_once(running + waiting)
        figures.record(
            "broker stopped, and started empty",
            lost=0,
            submission_meanwhile_seconds=took,
            all_3_done_after_seconds=time.monotonic() - back,
        )
        assert took < ACCEPTED_SECONDS

    def test_that_is_emptied_costs_no_job(self, service: Service, figures: Figures) -> None:
        with service.running(2) as running:
            waiting = service.submit(2)
            with service.broker.client() as client:
                client.flushall()
        began = time.monotonic()
        service.assert_done_once(running + waiting)
        figures.record(
            "FLUSHALL with 2 running and 2 queued jobs", lost=0, all_done_after_seconds=time.monotonic() - began
        )
        service.assert_done_once(service.submit(1))  # bells are heard as before

    def test_that_says_nothing_for_a_while_costs_no_job(self, service: Service, full: bool, figures: Figures) -> None:
        lost = service.told("Connection to broker lost")
        with service.running(1) as running, service.broker.paused():
            began = time.monotonic()
            waiting = service.submit(1)
            took = time.monotonic() - began
            services.wait_until(lambda: service.told("Connection to broker lost") > lost, SECONDS)
            if full:
                time.sleep(max(0, PAUSE_SECONDS - (time.monotonic() - began)))
            paused = time.monotonic() - began
        back = time.monotonic()
        service.assert_done_once(running + waiting)
        figures.record(
            "broker paused",
            for_seconds=paused,
            lost=0,
            submission_meanwhile_seconds=took,
            both_done_after_seconds=time.monotonic() - back,
        )
        assert took < ACCEPTED_SECONDS

    def test_that_says_nothing_keeps_no_worker_from_ending(self, service: Service) -> None:
        with service.house.worker("third") as third:
            services.wait_until(lambda: len(service.steps.do(workers.list_)) == 3, SECONDS)
            with service.broker.paused():
                third.terminate()
                assert third.wait(SECONDS) == 0

    def test_whose_queue_is_something_else_is_asked_again(self, service: Service) -> None:
        """As is one that answers for a while that its disk is full."""
        service.wait_until_heard()
        lost = service.told("Connection to broker lost")
        with service.broker.client() as client:
            client.set(Queue.CPU, "no list")
            try:
                services.wait_until(lambda: service.told("Connection to broker lost") > lost, SECONDS)
            finally:
                client.delete(Queue.CPU)
        service.assert_done_once(service.submit(1))


class TestABell:
    def test_rung_many_times_has_a_job_done_once(self, service: Service) -> None:
        ids = service.submit(1)
        for _ in range(30):
            assert queue.ring(service.settings, ids[0], Queue.CPU)
        service.assert_done_once(ids)
        service.wait_until_heard()
        service.assert_done_once(ids)

    def test_for_a_job_that_has_ended_or_is_gone_does_nothing(self, service: Service) -> None:
        ended = service.submit(1)
        service.assert_done_once(ended)
        deleted = service.house.submit(**UNTAKEN)
        assert service.house.http.post(f"/v1/jobs/{deleted}/cancel").is_success
        assert service.house.http.delete(f"/v1/jobs/{deleted}").is_success
        for job_id in (*ended, deleted, str(uuid4())):
            assert queue.ring(service.settings, job_id, Queue.CPU)
        service.wait_until_heard()
        service.assert_done_once(service.submit(1) + ended)


def envelope(body: bytes, content_type: str = "application/json", **headers: object) -> bytes:
    """A message as Celery's senders put it into Redis."""
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": headers,
        "properties": {
            "delivery_tag": str(uuid4()),
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": "cpu"},
            "correlation_id": "1",
        },
    }
    return json.dumps(message).encode()


POISON = {
    "not JSON": b"\x00\xff{",
    "no object": b"[1, 2]",
    "no envelope": b'{"body": ""}',
    "no headers": envelope(b"hello"),
    "another task": envelope(b"[[], {}, {}]", task="os.system", id="1"),
    "another task without an id": envelope(b"[[], {}, {}]", task="os.system"),
    "no id": envelope(b"[[], {}, {}]", task=queue.WORK),
    "no arguments": envelope(b"null", task=queue.WORK, id="1"),
    "too many arguments": envelope(b"[[1, 2, 3], {}, {}]", task=queue.WORK, id="1"),
    "no list of arguments": envelope(b'{"a": 1}', task=queue.WORK, id="1"),
    "an object for an id": envelope(b'[[{"a": 1}], {}, {}]', task=queue.WORK, id="1"),
    "NUL": envelope(b'[["a\\u0000b"], {}, {}]', task=queue.WORK, id="1"),
    "a pickle": envelope(b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00]\x94.", "application/x-python-serialize",
                         task=queue.WORK, id="1"),
    "no time": envelope(b'[["a"], {}, {}]', task=queue.WORK, id="1", eta="tomorrow"),
    "huge": envelope(b'[["' + b"x" * 8_000_000 + b'"], {}, {}]', task=queue.WORK, id="1"),
}  # fmt: skip


class TestAMessageThatIsNoBell:
    def test_costs_a_worker_no_more_than_itself(self, service: Service) -> None:
        for what, message in POISON.items():
            service.deliver(message)
            service.wait_until_heard()
            assert [worker.poll() for worker in service.workers] == [None, None], what
        for log in NAMES:
            assert service.house.log(log).stat().st_size < 1_000_000  # what is huge is not repeated
        with service.running(2) as running:  # either hears
            pass
        service.assert_done_once(running)
