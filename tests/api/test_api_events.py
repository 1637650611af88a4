"""GET /v1/jobs/{id}/events, from a real server."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import event_streams
import httpx
import psycopg
import pytest
from event_streams import Event
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from core.progress import Stage
from hands import Worker
from store.settings import Settings


def watching(server: str, job_id: str, last_event_id: str | None = None) -> AbstractContextManager[Iterator[Event]]:
    return event_streams.watching(f"{server}/v1/jobs/{job_id}/events", last_event_id)


def told(events: Iterator[Event]) -> list[tuple[str, str, str | None]]:
    return [(event["event"], event["data"]["state"], event["data"]["stage"]) for event in events]


class TestStream:
    def test_opens_with_the_job_as_it_is(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        worker.progress(worker.claim(), Stage.CALIBRATE, 0.25)

        with watching(server, job_id) as events:
            first = next(events)

        assert first["event"] == "snapshot"
        assert first["data"]["kind"] == "snapshot"
        assert (first["data"]["state"], first["data"]["stage"]) == ("running", "calibrate")
        assert (first["data"]["fraction"], first["data"]["attempt"]) == (0.25, 1)

    def test_tells_the_loss_and_the_time_left_of_a_stage_that_trains(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        claim = worker.claim()
        worker.progress(claim, Stage.FINETUNE, 0.25, loss=0.375, eta_seconds=61.0)

        with watching(server, job_id) as events:
            opened = next(events)["data"]
            worker.progress(claim, Stage.FINETUNE, 0.5, loss=0.125, eta_seconds=41.0)
            later = next(events)["data"]
            worker.progress(claim, Stage.EVALUATE, 0.0)
            last = next(events)["data"]

        assert (opened["stage"], opened["loss"], opened["eta_seconds"]) == ("finetune", 0.375, 61.0)
        assert (later["fraction"], later["loss"], later["eta_seconds"]) == (0.5, 0.125, 41.0)
        assert (last["stage"], last["loss"], last["eta_seconds"]) == ("evaluate", None, None)

    def test_tells_what_happens_as_it_happens_and_ends_with_the_job(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()

        with watching(server, job_id) as events:
            assert next(events)["data"]["state"] == "queued"
            claim = worker.claim()
            assert next(events)["data"]["state"] == "running"
            worker.progress(claim, Stage.LOAD, 0.5)
            assert next(events)["event"] == "stage"
            worker.progress(claim, Stage.LOAD, 1.0)
            assert next(events)["data"]["fraction"] == 1.0
            worker.finish(claim)
            rest = told(events)

        assert rest == [("state", "succeeded", "load")]

    def test_of_a_finished_job_is_its_snapshot_alone(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")

        with watching(server, job_id) as events:
            [only] = list(events)

        assert (only["event"], only["data"]["state"], only["data"]["message"]) == ("snapshot", "failed", "empty")

    def test_of_a_job_cancelled_in_the_queue_ends(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()

        with watching(server, job_id) as events:
            next(events)
            httpx.post(f"{server}/v1/jobs/{job_id}/cancel").raise_for_status()
            rest = told(events)

        assert rest == [("state", "cancelled", None)]

    def test_ends_when_the_client_leaves(self, server: str, worker: Worker) -> None:
        """The server's own end would hang here otherwise: it waits for its streams."""
        job_id = worker.submit()

        with watching(server, job_id) as events:
            next(events)

    def test_is_told_to_many_while_other_routes_answer(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        watchers = [threading.Thread(target=_watch_to_the_end, args=(server, job_id)) for _ in range(60)]
        for watcher in watchers:
            watcher.start()

        answers = [httpx.get(f"{server}/v1/jobs/{job_id}").status_code for _ in range(7)]
        httpx.post(f"{server}/v1/jobs/{job_id}/cancel").raise_for_status()
        for watcher in watchers:
            watcher.join()

        assert answers == [200] * 7


class TestHead:
    def test_has_the_headers_and_ends(self, server: str, worker: Worker) -> None:
        answer = httpx.head(f"{server}/v1/jobs/{worker.submit()}/events")

        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert answer.headers["Cache-Control"] == "no-cache"


class TestResumption:
    def test_tells_what_happened_since(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        with watching(server, job_id) as events:
            seen = next(events)["id"]
        claim = worker.claim()
        worker.progress(claim, Stage.LOAD, 0.5)
        worker.finish(claim)

        with watching(server, job_id, last_event_id=seen) as events:
            since = list(events)

        assert told(iter(since)) == [
            ("state", "running", None),
            ("stage", "running", "load"),
            ("state", "succeeded", "load"),
        ]
        with watching(server, job_id, last_event_id=since[0]["id"]) as events:
            assert [event["id"] for event in events] == [event["id"] for event in since[1:]]

    def test_behind_the_end_ends_at_once(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")
        with watching(server, job_id) as events:
            [last] = list(events)

        with watching(server, job_id, last_event_id=last["id"]) as events:
            assert list(events) == []

    def test_from_the_beginning_tells_everything_page_by_page(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        claim = worker.claim()
        for step in range(211):
            worker.progress(claim, Stage.CALIBRATE, step / 211)
        worker.finish(claim)

        with watching(server, job_id, last_event_id="0") as events:
            ids = [int(event["id"]) for event in events]

        assert len(ids) == 211 + 3
        assert ids == sorted(set(ids))

    @pytest.mark.parametrize("last_event_id", ["abc", "-1", "1.5", str(2**63), "9" * 5_000])
    def test_from_what_is_no_event_is_refused(self, client: TestClient, worker: Worker, last_event_id: str) -> None:
        answer = client.get(f"/v1/jobs/{worker.submit()}/events", headers={"Last-Event-ID": last_event_id})

        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "last-event-id")


class TestOutage:
    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_of_the_database_does_not_end_a_stream(
        self, server: str, worker: Worker, postgres_server: str, database_url: str
    ) -> None:
        job_id = worker.submit()
        claim = worker.claim()

        with watching(server, job_id) as events:
            next(events)
            with _unreachable(postgres_server, make_url(database_url).database):
                meanwhile = httpx.get(f"{server}/v1/jobs/{job_id}")
            worker.fail(claim, "bad_dataset", "empty")
            rest = told(events)

        assert (meanwhile.status_code, meanwhile.json()["code"]) == (503, "database_unreachable")
        assert rest == [("state", "failed", None)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestShutdown:
    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_ends_open_streams(self, settings: Settings, worker: Worker, tmp_path: Path, number: int) -> None:
        job_id = worker.submit()
        command = [sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory", "--port", "0"]
        environment = os.environ | {
            "VITPRESS_DATA_DIR": str(settings.data_dir),
            "VITPRESS_DATABASE_URL": settings.database_url,
            "VITPRESS_AUTH": "local",
        }
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            try:
                ready = next(line for line in process.stderr if "running on" in line)
                url = next(word for word in ready.split() if word.startswith("http://"))
                with watching(url, job_id) as events:
                    next(events)
                    process.send_signal(number)
                    assert list(events) == []
                log = process.stderr.read()
                process.wait()
            finally:
                process.kill()

        assert "Application shutdown complete" in log
        assert "Cancel" not in log
        assert "Traceback" not in log


@contextmanager
def _unreachable(server: str, database: str | None) -> Iterator[None]:
    """Cut every connection to the database, and let nobody in."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false'.encode())
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
            yield
        finally:
            connection.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true'.encode())


def _watch_to_the_end(url: str, job_id: str) -> None:
    with watching(url, job_id) as events:
        list(events)
