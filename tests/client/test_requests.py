import json
import socket

import pytest
from faulty_server import Answer, Script, hang_up, json_answer

from vitpress import Client
from vitpress.errors import (
    ApiError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ServerUnreachableError,
    UnexpectedAnswerError,
)
from vitpress.transport import Retries

IMPATIENT = Retries(attempts=3, first_pause=0)
JOB = {
    "id": "j", "state": "queued", "model": "m", "dataset": "d", "recipe": {}, "created_at": "2025-01-02T03:04:05Z"
}  # fmt: skip
FOUND = json_answer(json.dumps(JOB))
BUSY = json_answer('{"code": "not_ready"}', 503, Retry_After="0")


def client(server: Script) -> Client:
    return Client(server.url, retries=IMPATIENT)


class TestAReadingRequest:
    @pytest.mark.parametrize("trouble", [hang_up, BUSY, json_answer("{}", 502)])
    def test_is_repeated_while_the_trouble_may_pass(self, trouble: Answer) -> None:
        with Script(trouble, trouble, FOUND) as server:
            assert client(server).get("j").id == "j"

    def test_gives_up_after_the_allowed_attempts(self) -> None:
        with Script(BUSY, BUSY, BUSY, FOUND) as server:
            with pytest.raises(ApiError, match="Service Unavailable") as caught:
                client(server).get("j")
            assert (caught.value.status, caught.value.code, len(server.seen)) == (503, "not_ready", 3)

    def test_is_not_repeated_after_a_refusal(self) -> None:
        with Script(json_answer("{}", 404), FOUND) as server:
            with pytest.raises(NotFoundError):
                client(server).get("j")
            assert len(server.seen) == 1

    def test_never_pauses_longer_than_it_may_whatever_the_server_says(self) -> None:
        with Script(json_answer("{}", 503, Retry_After="86400"), FOUND) as server:
            brief = Retries(attempts=2, first_pause=0, longest_pause=0.01)
            assert Client(server.url, retries=brief).get("j").id == "j"

    def test_understands_a_date_to_retry_at(self) -> None:
        past = json_answer("{}", 503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
        with Script(past, FOUND) as server:
            assert client(server).get("j").id == "j"

    def test_follows_the_pages_to_their_end(self) -> None:
        first = json_answer(json.dumps({"items": [JOB, JOB], "next_cursor": "c/+="}))
        last = json_answer(json.dumps({"items": [JOB], "next_cursor": None}))
        with Script(first, last) as server:
            assert len(list(client(server).jobs(state="queued", page=2))) == 3
            paths = [seen.path for seen in server.seen]
        assert paths == ["/v1/jobs?state=queued&limit=2", "/v1/jobs?state=queued&limit=2&cursor=c%2F%2B%3D"]


class TestAWritingRequest:
    def test_is_sent_again_with_the_key_by_which_the_server_does_it_once(self) -> None:
        with Script(hang_up, FOUND, FOUND) as server:
            for _ in range(2):
                assert client(server).compress("m", dataset="d", target_ratio=0.5).id == "j"
            first, again, another = (seen.headers["idempotency-key"] for seen in server.seen)
        assert first == again != another

    def test_leaves_out_what_is_not_given_so_that_the_servers_defaults_hold(self) -> None:
        with Script(FOUND) as server:
            client(server).compress("m", dataset="d", target_ratio=0.5, rank_budget=None, seed=7, labels={})
            sent = json.loads(server.seen[0].body)
        recipe = {"method": "fisher", "target_ratio": 0.5, "seed": 7}
        assert sent == {"model": "m", "dataset": "d", "recipe": recipe}


class TestARefusal:
    def test_carries_the_fields_at_fault_and_what_would_be_right(self) -> None:
        errors = [
            {
                "pointer": "/model",
                "code": "unknown_model",
                "message": "unknown model 'vit'",
                "near": ["vit_a", "vit_b"],
            },
            {"pointer": "/recipe/target_ratio", "message": "too much", "reachable": 0.75},
        ]
        body = {"title": "Invalid request", "detail": "2 fields", "code": "invalid_request", "errors": errors}
        with Script(json_answer(json.dumps(body), 422)) as server, pytest.raises(InvalidRequestError) as caught:
            client(server).compress("vit", dataset="d", target_ratio=0.99)
        assert str(caught.value) == "2 fields"
        assert str(caught.value.errors[0]) == "/model: unknown model 'vit' (near matches: vit_a, vit_b)"
        assert caught.value.errors[1].reachable == 0.75

    def test_of_a_finished_job_is_a_conflict(self) -> None:
        with Script(json_answer('{"detail": "is over"}', 409)) as server, pytest.raises(ConflictError, match="is over"):
            client(server).cancel("j")

    def test_by_a_proxy_that_knows_no_problem_details_is_its_status(self) -> None:
        with (
            Script(lambda handler: handler.send(403, b"<html>go away")) as server,
            pytest.raises(ApiError, match="Forbidden") as caught,
        ):
            client(server).get("j")
        assert caught.value.status == 403

    def test_whose_members_are_not_what_they_should_be_is_its_status(self) -> None:
        with (
            Script(json_answer('{"detail": 7, "errors": "many"}', 400)) as server,
            pytest.raises(ApiError, match="Bad Request"),
        ):
            client(server).get("j")


class TestAnAnswerThatIsNotVitpresss:
    @pytest.mark.parametrize("body", ["<html>", "[]", '{"id": "j"}', "null"])
    def test_is_said_to_be_unexpected(self, body: str) -> None:
        with Script(json_answer(body)) as server, pytest.raises(UnexpectedAnswerError):
            client(server).get("j")

    def test_is_recognised_among_pages_too(self) -> None:
        with Script(json_answer("[]")) as server, pytest.raises(UnexpectedAnswerError, match="items"):
            list(client(server).jobs())


class TestNoServer:
    def test_is_said_with_its_url(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ServerUnreachableError, match=url):
            Client(url, retries=IMPATIENT).get("j")

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://host:port"])
    def test_at_a_malformed_url_is_not_tried_again(self, url: str) -> None:
        with pytest.raises(ServerUnreachableError) as caught:
            Client(url).get("j")
        assert not caught.value.passing

    def test_is_never_looked_for_behind_a_proxy_if_it_is_on_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        with Script(FOUND) as server:
            assert client(server).get("j").id == "j"

    def test_is_looked_for_where_the_environment_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Script(FOUND) as server:
            monkeypatch.setenv("VITPRESS_URL", server.url + "/")
            assert Client().get("j").id == "j"
