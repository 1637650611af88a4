"""GET /v1/projects/{name}/events, from a real server."""

import pytest
from event_streams import watching
from fastapi.testclient import TestClient

from api import project_events
from hands import Worker
from store.values import Scope
from team import Team

PATH = "/v1/projects/default/events"


class TestStream:
    def test_tells_of_all_jobs_from_now_on_and_resumes(self, server: str, worker: Worker) -> None:
        worker.submit()
        with watching(server + PATH) as events:
            opened = next(events)
            assert (opened["event"], opened["data"]) == ("opened", {"project": "default"})
            one, other = worker.submit(), worker.submit()
            told = [next(events) for _ in range(2)]
        assert [(each["data"]["job_id"], each["data"]["state"]) for each in told] == [
            (one, "queued"),
            (other, "queued"),
        ]
        worker.fail(worker.claim(), "bad_dataset", "empty")
        for start, expected in ((opened["id"], 4), (told[0]["id"], 3), (told[1]["id"], 2)):
            with watching(server + PATH, start) as events:
                rest = [next(events) for _ in range(expected)]
            assert [each["data"]["state"] for each in rest[-2:]] == ["running", "failed"]
            assert rest[-1]["data"]["message"] == "empty"

    def test_ends_after_a_while_so_that_keys_are_looked_at_again(
        self, server: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(project_events, "STREAM_SECONDS", 0.2)
        with watching(server + PATH) as events:
            assert [each["event"] for each in events] == ["opened"]

    @pytest.mark.parametrize("last_event_id", ["abc", "7", "-1-1", "9" * 61])
    def test_from_what_is_no_event_is_refused(self, client: TestClient, last_event_id: str) -> None:
        answer = client.get(PATH, headers={"Last-Event-ID": last_event_id})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "last-event-id")

    def test_of_another_owner_s_project_is_not_found(self, team: Team) -> None:
        team.client("anna").post("/v1/projects", json={"name": "lenses"})
        answer = team.client("bob", Scope.READ).get("/v1/projects/lenses/events")
        assert (answer.status_code, answer.json()["code"]) == (404, "project_not_found")
