"""/v1/webhooks."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from hands import Worker
from store import webhooks
from store.settings import Settings
from store.values import Scope
from team import Team

URL = "https://8.8.8.8/hook"
NOWHERE = "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57"


def make(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": URL} | body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


class TestAdding:
    def test_shows_the_secret_this_once(self, client: TestClient) -> None:
        answer = client.post("/v1/webhooks", json={"url": URL, "events": ["job.failed", "job.succeeded"]})
        made = answer.json()
        assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
        secret = made.pop("secret")
        assert secret.startswith("whsec_")
        assert client.get(answer.headers["Location"]).json() == made
        assert made["events"] == ["job.succeeded", "job.failed"]
        assert (made["project"], made["disabled_at"]) == (None, None)
        assert secret not in client.get("/v1/webhooks").text

    def test_of_all_events_unless_some_are_named(self, client: TestClient) -> None:
        assert "job.started" in make(client)["events"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"url": "http://127.0.0.1:8000/"}, "/url"),
            ({"url": "http://[::ffff:10.0.0.1]/"}, "/url"),
            ({"url": "http://user:word@8.8.8.8/"}, "/url"),
            ({"url": "ftp://8.8.8.8/"}, "/url"),
            ({"url": "https://nowhere.invalid/"}, "/url"),
            ({"url": "hello"}, "/url"),
            ({"url": URL, "events": []}, "/events"),
            ({"url": URL, "events": ["job.eaten"]}, "/events/0"),
            ({"url": URL, "project": "nobody's"}, "/project"),
        ],
    )
    def test_refuses_what_cannot_be_by_the_field(self, client: TestClient, body: dict[str, Any], pointer: str) -> None:
        answer = client.post("/v1/webhooks", json=body)
        assert answer.status_code == 422
        assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]

    def test_of_more_than_there_may_be_is_a_conflict(self, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhooks, "MOST", 1)
        make(client)
        answer = client.post("/v1/webhooks", json={"url": URL})
        assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")


class TestPrivateAddresses:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"webhook_private": True})

    def test_are_fine_where_the_server_allows_them(self, client: TestClient) -> None:
        assert make(client, url="http://127.0.0.1:9/")["url"] == "http://127.0.0.1:9/"


class TestChanging:
    def test_what_is_left_out_stays(self, client: TestClient) -> None:
        path = f"/v1/webhooks/{make(client)['id']}"
        changed = client.patch(path, json={"events": ["job.failed"]}).json()
        assert (changed["url"], changed["events"], changed["disabled_at"]) == (URL, ["job.failed"], None)
        assert client.patch(path, json={"enabled": False}).json()["disabled_at"] is not None
        assert client.patch(path, json={"url": "https://1.1.1.1/"}).json()["disabled_at"] is not None
        assert client.patch(path, json={"enabled": True}).json()["disabled_at"] is None
        refused = client.patch(path, json={"url": "http://10.0.0.1/"})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/url")

    def test_a_secret_can_be_replaced(self, client: TestClient) -> None:
        made = make(client)
        answer = client.post(f"/v1/webhooks/{made['id']}/rotate")
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json()["secret"] not in {made["secret"], ""}

    def test_one_that_is_deleted_is_gone(self, client: TestClient) -> None:
        path = f"/v1/webhooks/{make(client)['id']}"
        client.post(f"{path}/test")
        assert client.delete(path).status_code == 200
        assert client.get(path).status_code == client.delete(path).status_code == 404


class TestTheLog:
    def test_tells_what_was_sent_page_by_page_and_sends_again(self, client: TestClient, worker: Worker) -> None:
        path = f"/v1/webhooks/{make(client)['id']}"
        job_id = worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")
        tested = client.post(f"{path}/test")
        assert (tested.status_code, tested.json()["event"]) == (202, "webhook.test")
        first = client.get(f"{path}/deliveries", params={"limit": 2}).json()
        rest = client.get(f"{path}/deliveries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        rows = first["items"] + rest["items"]
        assert [row["event"] for row in rows] == ["webhook.test", "job.failed", "job.started"]
        assert rows[1]["payload"]["data"]["job_id"] == job_id
        assert rows[1]["attempts"] == 0
        again = client.post(f"{path}/deliveries/{rows[1]['id']}/redeliver")
        assert (again.status_code, again.json()["id"]) == (202, rows[1]["id"])

    def test_a_disabled_one_is_sent_nothing(self, client: TestClient) -> None:
        path = f"/v1/webhooks/{make(client)['id']}"
        delivery = client.post(f"{path}/test").json()["id"]
        client.patch(path, json={"enabled": False})
        for each in (f"{path}/test", f"{path}/deliveries/{delivery}/redeliver"):
            assert client.post(each).json()["code"] == "webhook_disabled"

    @pytest.mark.parametrize("delivery", [NOWHERE, "x"])
    def test_of_what_is_not_there_is_not_found(self, client: TestClient, delivery: str) -> None:
        path = f"/v1/webhooks/{make(client)['id']}"
        assert client.post(f"{path}/deliveries/{delivery}/redeliver").json()["code"] == "delivery_not_found"


class TestOwners:
    def test_see_none_of_another_s(self, team: Team) -> None:
        anna, bob = team.client("anna"), team.client("bob")
        path = f"/v1/webhooks/{make(anna)['id']}"
        delivery = anna.post(f"{path}/test").json()["id"]
        answers = [
            bob.get(path), bob.patch(path, json={"enabled": False}), bob.delete(path), bob.post(f"{path}/rotate"),
            bob.post(f"{path}/test"), bob.get(f"{path}/deliveries"),
            bob.post(f"{path}/deliveries/{delivery}/redeliver"),
        ]  # fmt: skip
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(404, "webhook_not_found")}
        mine = f"/v1/webhooks/{make(bob)['id']}"
        assert bob.post(f"{mine}/deliveries/{delivery}/redeliver").status_code == 404
        assert len(bob.get("/v1/webhooks").json()["items"]) == 1
        assert anna.get(path).json()["disabled_at"] is None

    def test_who_only_read_change_nothing(self, team: Team) -> None:
        path = f"/v1/webhooks/{make(team.client('anna'))['id']}"
        viewer = team.client("anna", Scope.READ)
        assert viewer.get(path).status_code == 200
        for answer in (
            viewer.post("/v1/webhooks", json={"url": URL}),
            viewer.delete(path),
            viewer.post(f"{path}/rotate"),
        ):
            assert (answer.status_code, answer.json()["scope"]) == (403, "submit")
