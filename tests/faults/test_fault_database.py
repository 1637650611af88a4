"""A database that is away, full or overrun: 503 is answered until it is back, and nothing accepted is lost."""

import signal
import sqlite3
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from figures import Figures
from history import judge, read
from house import SECONDS, House
from limits import no_room
from sqlalchemy import Engine, event, make_url, select, text

import services
from api.app import create_app
from benchmarks.load.postgres import OwnPostgres
from examples import SMALL_JOB
from migrations.upgrade import upgrade
from serving import serving
from store.session import engine, transaction
from store.settings import Settings
from store.states import JobState
from store.tables import Event, Job

NO_BROKER = "redis://127.0.0.1:1/0"


@pytest.fixture(scope="module")
def postgres() -> Iterator[OwnPostgres]:
    with OwnPostgres(durable=False) as server:
        yield server


@pytest.fixture
def house(postgres: OwnPostgres, redis_url: str, tmp_path: Path) -> Iterator[House]:
    """On a database of that server, with which it goes."""
    name = f"vitpress_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
    with House(url, redis_url, tmp_path) as house:
        house.migrate()
        yield house


class Clients:
    """Some who submit jobs and look at them, each again and again until what it wants is done, as the SDK does."""

    def __init__(self, house: House) -> None:
        self.statuses: Counter[int] = Counter()
        self.accepted: dict[str, str] = {}  # ids of jobs by the key that they were submitted with
        self.strange: list[str] = []  # answers that nobody was promised
        self._house, self._stopping = house, threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._house.http.base_url, timeout=60, trust_env=False) as http:
            while not self._stopping.wait(0.1):
                key = str(uuid.uuid4())
                made = self._until_done(http, "POST", "/v1/jobs", json=SMALL_JOB, headers={"Idempotency-Key": key})
                if made is not None:
                    self.accepted[key] = made.json()["id"]
                    self._until_done(http, "GET", f"/v1/jobs/{made.json()['id']}")

    def _until_done(self, http: httpx.Client, method: str, path: str, **request: Any) -> httpx.Response | None:
        """None: what was wanted was given up, because the test is over."""
        while not self._stopping.wait(0.05):
            answer = http.request(method, path, **request)
            self.statuses[answer.status_code] += 1
            if answer.is_success:
                return answer
            if answer.status_code != 503 or not 0 < int(answer.headers.get("Retry-After", 0)) < 60:
                self.strange.append(f"{method} {path}: {answer.status_code} {answer.headers} {answer.text}")
        return None


class TestADatabaseThatIsRestarted:
    def test_costs_neither_a_job_nor_the_api_its_life(
        self, house: House, postgres: OwnPostgres, figures: Figures
    ) -> None:
        clients = Clients(house)
        with house.api() as api, house.worker():
            running = house.submit()
            services.wait_until(lambda: house.job(running)["state"] == JobState.RUNNING, SECONDS)
            with clients.at_work():
                services.wait_until(lambda: len(clients.accepted) > 4, SECONDS)
                postgres.stop(signal.SIGQUIT)
                services.wait_until(lambda: clients.statuses[503] > 4, SECONDS)
                postgres.start()
                back, accepted = time.monotonic(), len(clients.accepted)
                services.wait_until(lambda: len(clients.accepted) > accepted + 4, SECONDS)
                seconds = time.monotonic() - back
            first, *others = clients.accepted.values()
            for job_id in others:  # they would only take time
                house.http.post(f"/v1/jobs/{job_id}/cancel")
            ended = [running, first, *others]
            house.wait_for_end(*ended)
            assert api.poll() is None
        assert clients.strange == []
        pasts = read(house.database())
        verdict = judge(ended, pasts)
        figures.record(
            "PostgreSQL stopped by SIGQUIT and started, under submissions",
            accepted=len(ended), **verdict.counts,
            seconds_to_the_next_five_jobs=seconds,
        )  # fmt: skip
        assert verdict.is_clean, verdict
        assert {past.state for past in pasts if past.job_id in {running, first}} == {JobState.SUCCEEDED}


class TestConnectionsThatAreCutMidTransaction:
    def test_do_not_lose_or_double_a_submission(self, house: House, figures: Figures) -> None:
        clients = Clients(house)
        with house.api(), clients.at_work():
            services.wait_until(lambda: clients.accepted, SECONDS)
            cuts = 0
            for _ in range(40):
                cuts += cut_all(house)
                time.sleep(0.05)  # some work in between; how much does not matter
            accepted = len(clients.accepted)
            services.wait_until(lambda: len(clients.accepted) > accepted + 4, SECONDS)
        assert cuts > 0
        assert clients.strange == []
        with transaction(house.database(), read_only=True) as session:
            there = set(session.scalars(select(Job.id)))
        lost = set(clients.accepted.values()) - there
        # a submission whose answer the end of the test cut off, one at most for each of the clients
        doubled = len(there) - len(clients.accepted)
        figures.record(
            "PostgreSQL's connections terminated under submissions",
            connections=cuts, accepted=len(clients.accepted), lost=len(lost),
        )  # fmt: skip
        assert lost == set()
        assert doubled <= 4
        assert len(set(clients.accepted.values())) == len(clients.accepted)


class TestAPoolThatIsUsedUp:
    def test_is_a_503_soon_while_health_answers_and_passes_by_itself(self, house: House) -> None:
        with house.api(VITPRESS_DATABASE_CONNECTIONS="2"):
            url = house.database().url.set(drivername="postgresql").render_as_string(hide_password=False)
            with psycopg.connect(url) as blocking:
                blocking.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
                answers: list[httpx.Response] = []
                threads = [
                    threading.Thread(target=lambda: answers.append(house.http.get("/v1/jobs", timeout=60)))
                    for _ in range(6)
                ]
                for thread in threads:
                    thread.start()
                services.wait_until(lambda: len(answers) >= 4, SECONDS)
                assert house.http.get("/healthz").is_success
                for answer in answers[:4]:
                    assert (answer.status_code, answer.json()["code"]) == (503, "database_unreachable")
                    assert int(answer.headers["Retry-After"]) > 0
            for thread in threads:
                thread.join()
            assert len(answers) == 6
            assert {answer.status_code for answer in answers} <= {200, 503}
            assert house.http.get("/v1/jobs").is_success


class Disk:
    """SQLite's, as a test wants it, on every connection of this process: ``full``, or ``read_only``."""

    def __init__(self, database: Engine) -> None:
        self.full = self.read_only = False
        event.listen(database, "checkout", self._prepare)

    def _prepare(self, connection: Any, *_: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0] if self.full else 1 << 30
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.execute(f"PRAGMA query_only = {int(self.read_only)}")


class TestSqlite:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Iterator[Settings]:
        settings = Settings(data_dir=tmp_path, broker_url=NO_BROKER, auth="local")
        upgrade(engine(settings))
        yield settings
        engine(settings).dispose()

    @pytest.fixture
    def disk(self, settings: Settings) -> Disk:
        return Disk(engine(settings))

    @pytest.fixture
    def http(self, settings: Settings, disk: Disk) -> Iterator[httpx.Client]:
        with serving(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            yield http

    @pytest.mark.parametrize("trouble", ["full", "read_only"])
    def test_that_cannot_write_is_a_503_leaves_nothing_by_halves_and_recovers(
        self, http: httpx.Client, settings: Settings, disk: Disk, trouble: str
    ) -> None:
        before = self._submit_until_refused(http, disk, trouble)
        with transaction(engine(settings), read_only=True) as session:
            ids = set(session.scalars(select(Job.id)))
            assert ids == before
            assert set(session.scalars(select(Event.job_id))) == before
            assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        assert http.get(f"/v1/jobs/{min(before)}").is_success  # what is there can be read
        setattr(disk, trouble, False)
        assert http.post("/v1/jobs", json=SMALL_JOB).status_code == 202

    def _submit_until_refused(self, http: httpx.Client, disk: Disk, trouble: str) -> set[str]:
        """The ids of the jobs that were accepted before."""
        accepted = {http.post("/v1/jobs", json=SMALL_JOB).json()["id"]}
        setattr(disk, trouble, True)
        for _ in range(200):  # the last page may have room for some
            answer = http.post("/v1/jobs", json=SMALL_JOB)
            if answer.status_code != 202:
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unreachable")
                assert answer.headers["Content-Type"] == "application/problem+json"
                assert int(answer.headers["Retry-After"]) > 0
                return accepted
            accepted.add(answer.json()["id"])
        raise AssertionError("the disk was never full")

    def test_whose_file_cannot_grow_is_a_503_and_recovers(self, tmp_path: Path) -> None:
        """Of a real process, by the system's limit on the size of files."""
        with House(f"sqlite:///{tmp_path}/vitpress.db", NO_BROKER, tmp_path) as house:
            house.migrate()
            with house.api() as api:
                accepted = {house.submit()}
                with no_room(api.pid, (tmp_path / "vitpress.db-wal").stat().st_size):
                    answer = house.http.post("/v1/jobs", json=SMALL_JOB)
                    assert (answer.status_code, answer.json()["code"]) == (503, "database_unreachable")
                    assert int(answer.headers["Retry-After"]) > 0
                accepted.add(house.submit())
            with sqlite3.connect(tmp_path / "vitpress.db") as connection:
                assert {job_id for (job_id,) in connection.execute("SELECT id FROM jobs")} == accepted
            connection.close()

    def test_has_what_was_committed_on_the_disk_before_it_says_so(self, settings: Settings) -> None:
        """2 is FULL: in WAL mode, anything less leaves the last commits to the next checkpoint."""
        with engine(settings).connect() as connection:
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def cut_all(house: House) -> int:
    """The server ends every connection to the database but the one that asks for it. Returns how many."""
    url = house.database().url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        return len(ended.fetchall())
