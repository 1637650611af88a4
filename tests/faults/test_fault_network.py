"""Lines between vitpress and its servers that are cut, refused, slow or half-open: an API and a worker, both real, each
on lines of its own to PostgreSQL and to a Valkey. Nothing hangs for good, and nothing is lost.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import redis
from figures import Figures
from history import judge, read
from house import SECONDS, House
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import processes
import services
from core.progress import Stage
from proxy import Proxy
from steps import Steps
from store import jobs, workers
from store.session import engine, one_at_a_time, transaction
from store.settings import Settings
from store.states import JobState, Queue
from store.tables import Job

# Nobody is to be taken for dead because the machine is busy, or the line was for a while.
PATIENT = {"VITPRESS_LEASE_SECONDS": "90", "VITPRESS_HEARTBEAT_SECONDS": "1"}
HANGING_SECONDS = 90  # for what is to take store.session.ANSWER_SECONDS and a connection more, on a busy machine


@dataclass
class Service:
    """``house`` itself talks to the servers directly."""

    house: House
    steps: Steps
    broker_url: str
    api_database: Proxy
    api_broker: Proxy
    worker_database: Proxy
    worker_broker: Proxy
    submitted: list[str] = field(default_factory=list)

    def submit(self) -> str:
        """The id of an accepted job of a second."""
        self.submitted.append(self.house.submit_check(f"set-{len(self.submitted)}"))
        return self.submitted[-1]

    def read(self) -> httpx.Response:
        return self.house.http.get("/v1/jobs", timeout=HANGING_SECONDS)

    def is_read(self) -> bool:
        return self.read().status_code == HTTPStatus.OK

    def column(self, job_id: str, column: Any) -> Any:
        return self.steps.do(jobs.column, job_id, column)

    def assert_done_once(self, *ids: str) -> None:
        services.wait_until(
            lambda: all(self.column(job_id, Job.state) is JobState.SUCCEEDED for job_id in ids), SECONDS
        )
        pasts = [past for past in read(self.house.database()) if past.job_id in ids]
        verdict = judge(ids, pasts)
        assert verdict.is_clean, verdict
        assert [len(past.starts()) for past in pasts] == [1] * len(ids)


@pytest.fixture(scope="module")
def service(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ExitStack() as stack:
        database_url = stack.enter_context(services.new_database(postgres_server))
        broker_url = stack.enter_context(services.valkey())
        house = stack.enter_context(House(database_url, broker_url, tmp_path_factory.mktemp("house"), **PATIENT))
        house.migrate()
        lines = [stack.enter_context(Proxy(url)) for url in (database_url, broker_url) * 2]
        api, worker = (
            {"VITPRESS_DATABASE_URL": database.url, "VITPRESS_BROKER_URL": broker.url}
            for database, broker in (lines[:2], lines[2:])
        )
        steps = Steps(house.database())
        stack.enter_context(house.worker(**worker))
        stack.enter_context(house.api(**api))
        services.wait_until(lambda: steps.do(workers.list_), SECONDS)
        yield Service(house, steps, broker_url, lines[0], lines[1], lines[2], lines[3])


@pytest.fixture(autouse=True)
def lines(service: Service) -> Iterator[Sequence[Proxy]]:
    """Whole again afterwards."""
    lines = (service.api_database, service.api_broker, service.worker_database, service.worker_broker)
    yield lines
    for line in lines:
        line.restore()


class TestTheAPIOnItsLineToTheDatabase:
    def test_makes_it_anew_once_it_is_cut(self, service: Service) -> None:
        assert service.is_read()
        service.api_database.cut()
        assert service.is_read()

    def test_says_503_while_it_is_refused_and_serves_again_by_itself(self, service: Service) -> None:
        service.api_database.refuse()
        answer = service.read()
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert int(answer.headers["Retry-After"]) > 0
        service.api_database.restore()
        services.wait_until(service.is_read, SECONDS)

    def test_is_slow_where_it_is_slow(self, service: Service) -> None:
        service.api_database.delay(0.2)
        assert service.is_read()

    def test_gives_a_half_open_one_up_and_answers_on_another(self, service: Service, figures: Figures) -> None:
        assert service.is_read()
        service.api_database.strand()
        began = time.monotonic()
        answers: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: answers.append(service.read())) for _ in range(3)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        took = time.monotonic() - began
        assert {answer.status_code for answer in answers} <= {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
        assert len(answers) == len(asking)
        assert took < HANGING_SECONDS
        services.wait_until(service.is_read, SECONDS)
        figures.record("API's connections to PostgreSQL half-open", longest_answer_seconds=took)

    def test_says_503_where_the_server_hangs_as_well(self, service: Service, figures: Figures) -> None:
        service.api_database.hold()
        began = time.monotonic()
        answer = service.read()
        took = time.monotonic() - began
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert processes.answers(service.house.port)
        service.api_database.restore()
        services.wait_until(service.is_read, SECONDS)
        figures.record("PostgreSQL hangs", seconds_to_503=took)


class TestTheAPIOnItsLineToTheBroker:
    @pytest.mark.parametrize("broken", ["cut", "refuse", "hold", "strand"])
    def test_accepts_jobs_however_it_is_broken(self, service: Service, broken: str, figures: Figures) -> None:
        service.house.submit(device_tag="a-tag-that-no-worker-has")  # a bell goes over the line
        getattr(service.api_broker, broken)()
        began = time.monotonic()
        job_id = service.submit()
        took = time.monotonic() - began
        service.assert_done_once(job_id)
        figures.record(f"API's line to the broker: {broken}", submission_seconds=took)
        assert took < 10  # a second or two, but for a busy machine


class TestTheWorkerOnItsLineToTheBroker:
    @pytest.mark.parametrize("broken", ["cut", "strand"])
    def test_listens_on_another(self, service: Service, broken: str, figures: Figures) -> None:
        getattr(service.worker_broker, broken)()
        began = time.monotonic()
        service.assert_done_once(service.submit())
        figures.record(f"worker's line to the broker: {broken}", job_done_after_seconds=time.monotonic() - began)

    def test_listens_again_once_it_is_restored(self, service: Service) -> None:
        service.worker_broker.refuse()
        job_id = service.submit()
        with redis.Redis.from_url(service.broker_url) as broker:
            services.wait_until(lambda: broker.llen(Queue.CPU), SECONDS)
        service.worker_broker.restore()
        service.assert_done_once(job_id)

    def test_hears_slowly_where_it_is_slow(self, service: Service) -> None:
        service.worker_broker.delay(0.2)
        service.assert_done_once(service.submit())


class TestTheWorkerOnItsLineToTheDatabase:
    def test_sees_its_job_through_as_does_the_runner(self, service: Service, full: bool, figures: Figures) -> None:
        for broken in ("strand", "cut") if full else ("strand",):
            self.sees_through(service, broken, figures)

    def sees_through(self, service: Service, broken: str, figures: Figures) -> None:
        job_id = service.house.submit()
        runner = processes.runner_of(os.getpid(), job_id, SECONDS)
        services.wait_until(lambda: service.column(job_id, Job.stage) is Stage.LOAD, SECONDS)  # it has a connection
        runner.suspend()
        getattr(service.worker_database, broken)()
        runner.resume()
        began = time.monotonic()
        service.assert_done_once(job_id)
        figures.record(
            f"worker's line to PostgreSQL during a job: {broken}", job_done_after_seconds=time.monotonic() - began
        )

    def test_works_slowly_where_it_is_slow(self, service: Service) -> None:
        service.worker_database.delay(0.05)
        service.assert_done_once(service.submit())

    def test_goes_on_once_a_server_that_hung_answers(self, service: Service) -> None:
        log = service.house.log("worker")
        failed = log.read_text().count("sweep failed")
        service.worker_database.hold()
        services.wait_until(lambda: log.read_text().count("sweep failed") > failed, HANGING_SECONDS)
        service.worker_database.restore()
        service.assert_done_once(service.submit())


class TestAClientThatVanishes:
    def test_holds_up_the_others_for_half_a_minute_at_most(self, service: Service, figures: Figures) -> None:
        """As one whose machine lost its power in the middle of a claim. They come one at a time."""

        def is_claimed() -> bool:
            try:
                with transaction(service.house.database()) as session:
                    one_at_a_time(session, "claim")
            except OperationalError:
                return False  # it has waited for long enough, and is to try again
            return True

        with Proxy(service.house.environment["VITPRESS_DATABASE_URL"]) as line:
            vanished = engine(Settings(database_url=line.url)).connect()
            try:
                with Session(vanished) as session:
                    one_at_a_time(session, "claim")
                    line.hold()
                    began = time.monotonic()
                    services.wait_until(is_claimed, HANGING_SECONDS)
                    took = time.monotonic() - began
                    vanished.invalidate()
            finally:
                vanished.close()
        figures.record("client vanished in the middle of a claim", next_claim_after_seconds=took)
        assert took > 1  # it did hold them up
