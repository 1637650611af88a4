"""The short way of a poll: as the route answers, and never what is no longer so."""

from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.polls import Polls
from core.progress import Stage
from hands import Worker
from store.values import Scope
from team import Team


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each request that could be a poll, whether it took the short way."""
    taken: list[bool] = []
    answer = Polls._answer

    async def noting(self: Polls, scope: Any) -> Any:
        rendered = await answer(self, scope)
        taken.append(rendered is not None)
        return rendered

    monkeypatch.setattr(Polls, "_answer", noting)
    return taken


@pytest.fixture
def vision(team: Team) -> Worker:
    return Worker(team.settings, team.place("vision"))


@pytest.fixture
def client(team: Team) -> TestClient:
    """Of a key whose use was just noted."""
    client = team.client("vision")
    client.get("/v1/whoami")
    return client


def poll(client: TestClient, job_id: str, short: list[bool]) -> httpx2.Response:
    """By the short way. By the long one, which a scheme in small letters takes, it has the same answer."""
    short.clear()
    answer = client.get(f"/v1/jobs/{job_id}")
    assert short == [True]
    scheme, key = client.headers["Authorization"].split()
    other = client.get(f"/v1/jobs/{job_id}", headers={"Authorization": f"{scheme.lower()} {key}"})
    assert short == [True, False]
    assert answer.status_code == other.status_code == 200
    assert answer.content == other.content
    request_id = "X-Request-ID"
    assert [each for each in answer.headers.items() if each[0] != request_id.lower()] == [
        each for each in other.headers.items() if each[0] != request_id.lower()
    ]
    assert answer.headers[request_id] != other.headers[request_id]
    return answer


class TestTheShortWay:
    def test_tells_of_every_change_of_a_job(self, vision: Worker, client: TestClient, short: list[bool]) -> None:
        vision.submit()
        vision.finish(vision.claim(), stage_seconds={Stage.COMPRESS: 8.0})
        first, second = vision.submit(), vision.submit()

        def seen() -> dict[str, Any]:
            answer: dict[str, Any] = poll(client, second, short).json()
            return {name: answer[name] for name in ("state", "position", "stage", "stage_fraction", "name")}

        waits = {"state": "queued", "stage": None, "stage_fraction": 0.0, "name": None}
        assert seen() == waits | {"position": 2}
        vision.claim()
        assert seen() == waits | {"position": 1}  # of another job's doing: this one's row was not written
        client.patch(f"/v1/jobs/{second}", json={"name": "mine"}, headers={"If-Match": '"0"'})
        assert seen() == waits | {"position": 1, "name": "mine"}
        claim = vision.claim()
        vision.progress(claim, Stage.COMPRESS, 0.25)
        assert seen()["stage_fraction"] == 0.25
        vision.progress(claim, Stage.COMPRESS, 0.5)
        assert seen()["stage_fraction"] == 0.5
        assert poll(client, second, short).json()["eta_seconds"] is not None
        vision.finish(claim)
        assert seen()["state"] == "succeeded"
        assert poll(client, first, short).json()["state"] == "running"

    def test_ends_with_the_job_and_with_the_key(
        self, team: Team, vision: Worker, client: TestClient, short: list[bool]
    ) -> None:
        job_id = vision.submit()
        poll(client, job_id, short)
        key_id = client.get("/v1/whoami").json()["key"]["id"]
        admin = team.client("chief", Scope.ADMIN)

        admin.delete(f"/v1/keys/{key_id}")
        assert client.get(f"/v1/jobs/{job_id}").status_code == 401

        again = team.client("vision")
        again.get("/v1/whoami")
        poll(again, job_id, short)
        again.post(f"/v1/jobs/{job_id}/cancel")
        assert again.delete(f"/v1/jobs/{job_id}").status_code == 204
        assert again.get(f"/v1/jobs/{job_id}").status_code == 404

    def test_leads_to_nobody_elses_job(self, team: Team, vision: Worker, client: TestClient, short: list[bool]) -> None:
        job_id = vision.submit()
        poll(client, job_id, short)
        other = team.client("audio")
        other.get("/v1/whoami")

        assert other.get(f"/v1/jobs/{job_id}").json()["code"] == "job_not_found"

    @pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{}/", "/v1/jobs/{}/report", "/V1/jobs/{}", "/v1/jobs/x{}"])
    def test_is_for_jobs_alone(self, vision: Worker, client: TestClient, short: list[bool], path: str) -> None:
        client.get(path.format(vision.submit()))

        assert not any(short)

    def test_answers_head_as_well(self, vision: Worker, client: TestClient, short: list[bool]) -> None:
        job_id = vision.submit()
        answer = client.head(f"/v1/jobs/{job_id}")

        assert short[-1]
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(client.get(f"/v1/jobs/{job_id}").content))
