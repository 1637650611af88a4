"""/v1/keys and /v1/whoami."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from api.schemas_identity import LONGEST_LIFE
from store.keys import LONGEST_OVERLAP
from store.values import Scope
from team import Team

READ_AND_SUBMIT = ["read", "submit"]


def make(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json={"name": "a key"} | body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


class TestMaking:
    def test_shows_the_key_this_once(self, team: Team, database: Engine) -> None:
        member = team.client("anna")
        answer = member.post("/v1/keys", json={"name": "nightly", "role": "member"})
        made = answer.json()
        assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
        assert answer.headers["Location"] == f"/v1/keys/{made['id']}"
        assert (made["owner"], made["role"], made["scopes"]) == ("anna", "member", READ_AND_SUBMIT)
        key = made.pop("key")
        assert key.startswith(made["prefix"] + "_")
        assert member.get(answer.headers["Location"]).json() == made
        assert key not in member.get("/v1/keys").text
        with database.begin() as connection:
            assert key.split("_", 2)[2] not in str(connection.execute(text("SELECT * FROM api_keys")).all())

    @pytest.mark.parametrize(
        ("said", "scopes"),
        [
            ({"role": "viewer"}, ["read"]),
            ({"scopes": ["submit"]}, READ_AND_SUBMIT),
            ({"scopes": ["submit", "read", "submit"]}, READ_AND_SUBMIT),
        ],
    )
    def test_a_role_is_short_for_scopes(self, team: Team, said: dict[str, Any], scopes: list[str]) -> None:
        made = make(team.client("anna"), **said)
        assert made["scopes"] == scopes
        assert team.with_key(made["key"]).get("/v1/whoami").json()["scopes"] == scopes

    @pytest.mark.parametrize("said", [{"role": "admin"}, {"scopes": ["admin"]}, {"scopes": ["read", "admin"]}])
    def test_nobody_gets_more_than_they_have(self, team: Team, said: dict[str, Any]) -> None:
        answer = team.client("anna").post("/v1/keys", json={"name": "more"} | said)
        assert (answer.status_code, answer.json()["code"], answer.json()["scope"]) == (403, "scope_missing", "admin")

    def test_a_viewer_makes_none(self, team: Team) -> None:
        answer = team.client("anna", Scope.READ).post("/v1/keys", json={"name": "a key", "role": "viewer"})
        assert (answer.status_code, answer.json()["scope"]) == (403, "submit")

    def test_another_owner_s_is_an_administrator_s_to_make(self, team: Team) -> None:
        bert = team.client("bert")
        body = {"name": "a key", "role": "member", "owner": "anna"}
        assert bert.post("/v1/keys", json=body).json()["scope"] == "admin"
        admin = team.client("carla", Scope.ADMIN)
        [fault] = admin.post("/v1/keys", json=body | {"owner": "nobody"}).json()["errors"]
        assert (fault["pointer"], fault["code"]) == ("/owner", "owner_not_found")
        team.place("anna")
        made = make(admin, role="member", owner="anna")
        assert team.with_key(made["key"]).get("/v1/whoami").json()["owner"] == "anna"

    def test_a_key_expires_when_it_is_said_to_and_never_after_the_one_that_made_it(self, team: Team) -> None:
        admin = team.client("anna", Scope.ADMIN)
        week, month = (datetime.now(UTC).replace(microsecond=0) + timedelta(days=days) for days in (7, 30))
        first = make(admin, role="admin", expires_at=week.isoformat())
        assert datetime.fromisoformat(first["expires_at"]) == week
        second = make(team.with_key(first["key"]), role="viewer", expires_at=month.isoformat())
        assert second["expires_at"] == first["expires_at"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({}, ""),
            ({"role": "viewer", "scopes": ["read"]}, ""),
            ({"role": "owner"}, "/role"),
            ({"scopes": []}, "/scopes"),
            ({"scopes": ["write"]}, "/scopes/0"),
            ({"role": "viewer", "name": "two\nlines"}, "/name"),
            ({"role": "viewer", "owner": "../x"}, "/owner"),
            ({"role": "viewer", "expires_at": "2026-01-01T00:00:00Z"}, "/expires_at"),
            ({"role": "viewer", "expires_at": "2026-01-01T00:00:00"}, "/expires_at"),
            ({"role": "viewer", "expires_at": "9999-12-31T23:59:59-14:00"}, "/expires_at"),
            ({"role": "viewer", "expires_at": "0001-01-01T00:00:00+14:00"}, "/expires_at"),
            ({"role": "viewer", "secret": "sesame"}, "/secret"),
        ],
    )
    def test_a_fault_is_pointed_at(self, team: Team, body: dict[str, Any], pointer: str) -> None:
        answer = team.client("anna").post("/v1/keys", json={"name": "a key"} | body)
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"]) == (422, pointer)

    def test_no_key_lasts_for_ever_by_a_large_number(self, team: Team) -> None:
        late = (datetime.now(UTC) + LONGEST_LIFE + timedelta(days=1)).isoformat()
        answer = team.client("anna").post("/v1/keys", json={"name": "a key", "role": "viewer", "expires_at": late})
        assert answer.status_code == 422


class TestListing:
    def test_turns_the_pages_of_the_own_keys(self, team: Team) -> None:
        anna = team.client("anna")
        for _ in range(3):
            make(anna, role="viewer")
        make(team.client("bert"), role="viewer")
        first = anna.get("/v1/keys", params={"limit": 3}).json()
        second = anna.get("/v1/keys", params={"limit": 3, "cursor": first["next_cursor"]}).json()
        items = first["items"] + second["items"]
        assert [item["owner"] for item in items] == ["anna"] * 4
        assert second["next_cursor"] is None
        made = [datetime.fromisoformat(item["created_at"]) for item in items]
        assert made == sorted(made, reverse=True)

    def test_says_when_a_key_was_used_last(self, team: Team) -> None:
        anna = team.client("anna")
        made = make(anna, role="viewer")
        assert made["last_used_at"] is None
        team.with_key(made["key"]).get("/v1/jobs").raise_for_status()
        assert anna.get(f"/v1/keys/{made['id']}").json()["last_used_at"] is not None

    def test_another_owner_s_are_an_administrator_s_to_see(self, team: Team) -> None:
        team.client("anna")
        refused = team.client("bert").get("/v1/keys", params={"owner": "anna"})
        assert (refused.status_code, refused.json()["scope"]) == (403, "admin")
        admin = team.client("carla", Scope.ADMIN)
        assert [item["owner"] for item in admin.get("/v1/keys", params={"owner": "anna"}).json()["items"]] == ["anna"]
        assert admin.get("/v1/keys", params={"owner": "nobody"}).json()["code"] == "owner_not_found"


class TestRevoking:
    def test_shuts_a_key_out_at_once(self, team: Team) -> None:
        anna = team.client("anna")
        made = make(anna, role="viewer")
        viewer = team.with_key(made["key"])
        assert viewer.get("/v1/jobs").status_code == 200
        answers = [anna.delete(f"/v1/keys/{made['id']}") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json()["revoked_at"] is not None
        assert answers[0].json() == answers[1].json()
        refused = viewer.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_key")
        assert refused.headers["WWW-Authenticate"] == "Bearer"

    def test_of_the_last_admin_key_needs_force(self, team: Team) -> None:
        admin = team.client("anna", Scope.ADMIN)
        path = f"/v1/keys/{admin.get('/v1/whoami').json()['key']['id']}"
        assert admin.delete(path).json()["code"] == "last_admin_key"
        assert admin.get("/v1/owners").status_code == 200
        assert admin.delete(path, params={"force": True}).status_code == 200
        assert admin.get("/v1/owners").status_code == 401

    @pytest.mark.parametrize("key_id", ["0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57", "nonsense", "%00", "a" * 5_000])
    def test_of_what_is_no_key_is_not_found(self, team: Team, key_id: str) -> None:
        anna = team.client("anna")
        for answer in (anna.delete(f"/v1/keys/{key_id}"), anna.get(f"/v1/keys/{key_id}")):
            assert (answer.status_code, answer.json()["code"]) == (404, "key_not_found")


class TestRotating:
    def test_replaces_the_key_at_once(self, team: Team) -> None:
        old = make(team.client("anna"), role="member")
        client = team.with_key(old["key"])
        answer = client.post(f"/v1/keys/{old['id']}/rotate", json={})
        new = answer.json()
        assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/keys/{new['id']}")
        assert answer.headers["Cache-Control"] == "no-store"
        assert (new["name"], new["scopes"], new["prefix"] == old["prefix"]) == ("a key", READ_AND_SUBMIT, False)
        assert client.get("/v1/jobs").status_code == 401
        heir = team.with_key(new["key"])
        assert heir.get("/v1/jobs").status_code == 200
        assert heir.post(f"/v1/keys/{old['id']}/rotate", json={}).json()["code"] == "key_ended"

    def test_may_leave_an_overlap(self, team: Team) -> None:
        old = make(team.client("anna"), role="member")
        client = team.with_key(old["key"])
        new = client.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_seconds": 600}).json()
        assert client.get("/v1/jobs").status_code == 200
        shown = client.get(f"/v1/keys/{old['id']}").json()
        assert shown["revoked_at"] is None
        left = datetime.fromisoformat(shown["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=9) < left <= timedelta(minutes=10)
        assert new["expires_at"] is None

    @pytest.mark.parametrize("seconds", [-1, int(LONGEST_OVERLAP.total_seconds()) + 1, "long"])
    def test_an_overlap_has_bounds(self, team: Team, seconds: object) -> None:
        old = make(team.client("anna"), role="viewer")
        answer = team.client("anna").post(f"/v1/keys/{old['id']}/rotate", json={"overlap_seconds": seconds})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/overlap_seconds")

    def test_of_a_key_that_may_more_is_refused(self, team: Team) -> None:
        admin = team.client("anna", Scope.ADMIN)
        key_id = admin.get("/v1/whoami").json()["key"]["id"]
        answer = team.client("anna").post(f"/v1/keys/{key_id}/rotate", json={})
        assert (answer.status_code, answer.json()["scope"]) == (403, "admin")
        assert admin.get("/v1/whoami").status_code == 200


class TestWhoAmI:
    def test_says_whose_the_key_is_and_what_it_may(self, team: Team) -> None:
        me = team.client("anna").get("/v1/whoami").json()
        assert (me["auth"], me["owner"], me["role"], me["scopes"]) == ("keys", "anna", "member", READ_AND_SUBMIT)
        assert me["limits"] == {"max_running": None, "max_daily": None, "max_bytes": None}
        assert me["key"]["name"] == "a key"

    def test_in_local_mode_is_everything(self, client: TestClient) -> None:
        me = client.get("/v1/whoami").json()
        assert (me["auth"], me["owner"], me["role"], me["key"]) == ("local", "local", "admin", None)
