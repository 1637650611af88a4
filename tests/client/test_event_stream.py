import json

import pytest
from faulty_server import Answer, Script, events, hang_up, json_answer

from vitpress import Client
from vitpress.errors import NotFoundError, ServerUnreachableError, UnexpectedAnswerError
from vitpress.transport import Retries
from vitpress.values import JobEvent, JobState

IMPATIENT = Retries(stream_attempts=3, first_pause=0)


def event(number: int, kind: str, state: str, **more: object) -> str:
    data = {"kind": kind, "state": state, "stage": None, "fraction": 0.0, "attempt": 1, "message": None} | more
    return f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n"


def job(state: str) -> Answer:
    known = {
        "id": "job",
        "state": state,
        "model": "m",
        "dataset": "d",
        "recipe": {},
        "created_at": "2025-01-02T03:04:05Z",
    }
    return json_answer(json.dumps(known))


QUEUED = event(3, "snapshot", "queued")
RUNNING = event(5, "stage", "running", stage="compress", fraction=0.25)
DONE = event(7, "state", "succeeded")


def listen(server: Script, after: str | None = None) -> list[JobEvent]:
    with Client(server.url, retries=IMPATIENT) as client:
        return list(client.events("job", after=after))


class TestAStream:
    def test_gives_every_event_and_ends_with_the_job(self) -> None:
        with Script(events(QUEUED, RUNNING, DONE)) as server:
            heard = listen(server)
        assert [(each.id, each.kind, each.state) for each in heard] == [
            ("3", "snapshot", JobState.QUEUED),
            ("5", "stage", JobState.RUNNING),
            ("7", "state", JobState.SUCCEEDED),
        ]
        assert (heard[1].stage, heard[1].fraction) == ("compress", 0.25)

    def test_does_not_wait_for_the_server_to_close_once_the_job_is_finished(self) -> None:
        with Script(events(DONE, event(8, "state", "queued"))) as server:
            assert [each.id for each in listen(server)] == ["7"]

    def test_is_read_however_its_bytes_are_cut_and_its_lines_end(self) -> None:
        text = QUEUED + ": keep-alive\n\n" + RUNNING.replace("\n", "\r\n") + DONE
        with Script(events(*text)) as server:
            assert [each.id for each in listen(server)] == ["3", "5", "7"]

    def test_keeps_what_a_newer_server_adds(self) -> None:
        with Script(events(event(7, "state", "succeeded", carbon_grams=2))) as server:
            [heard] = listen(server)
        assert heard.model_dump()["carbon_grams"] == 2


class TestABrokenStream:
    def test_resumes_after_the_last_event_without_losing_or_repeating_one(self) -> None:
        with Script(events(QUEUED, RUNNING[:-2]), hang_up, events(RUNNING, DONE)) as server:
            assert [each.id for each in listen(server)] == ["3", "5", "7"]
            asked = [seen.headers.get("last-event-id") for seen in server.seen]
        assert asked == [None, "3", "3"]

    def test_begins_after_the_event_that_it_is_given(self) -> None:
        with Script(events(DONE)) as server:
            listen(server, after="5")
            assert server.seen[0].headers["last-event-id"] == "5"

    def test_survives_a_server_that_is_starting(self) -> None:
        busy = json_answer("{}", 503, Retry_After="0")
        with Script(busy, events(RUNNING), busy, busy, events(DONE)) as server:
            assert [each.id for each in listen(server)] == ["5", "7"]

    def test_that_ended_without_the_last_event_is_over_if_the_job_is(self) -> None:
        with Script(events(RUNNING), events(), job("running"), events(), job("failed")) as server:
            assert [each.id for each in listen(server)] == ["5"]

    def test_raises_when_the_server_stays_away(self) -> None:
        with Script(events(RUNNING), hang_up, hang_up, hang_up) as server, pytest.raises(ServerUnreachableError):
            listen(server)


class TestSomethingElse:
    def test_no_such_job_is_said_at_once(self) -> None:
        problem = json_answer('{"code": "job_not_found", "detail": "no job"}', 404)
        with Script(problem) as server, pytest.raises(NotFoundError, match="no job"):
            listen(server)

    @pytest.mark.parametrize("answer", [json_answer("{}"), events("data: not json\n\n"), events("data: {}\n\n")])
    def test_another_kind_of_answer_is_no_stream(self, answer: Answer) -> None:
        with Script(answer) as server, pytest.raises(UnexpectedAnswerError):
            listen(server)
