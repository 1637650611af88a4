"""/v1/owners and /v1/projects."""

from typing import Any

import pytest

from store.values import Scope
from team import Team

LIMITS = {"max_running": 3, "max_daily": 50, "max_bytes": 7 << 40}
NO_LIMITS = dict.fromkeys(LIMITS)


class TestOwners:
    def test_are_an_administrator_s_to_add(self, team: Team) -> None:
        admin = team.client("carla", Scope.ADMIN)
        answer = admin.post("/v1/owners", json={"name": "anna", "limits": LIMITS})
        assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/owners/anna")
        assert answer.json()["limits"] == LIMITS
        shown = admin.get("/v1/owners/anna")
        assert (shown.json(), shown.headers["ETag"]) == (answer.json(), answer.headers["ETag"])
        assert admin.post("/v1/owners", json={"name": "anna"}).json()["code"] == "owner_exists"
        assert team.client("anna").get("/v1/whoami").json()["limits"] == LIMITS

    def test_are_listed_by_name(self, team: Team) -> None:
        admin = team.client("carla", Scope.ADMIN)
        for name in ("bert", "anna"):
            admin.post("/v1/owners", json={"name": name}).raise_for_status()
        first = admin.get("/v1/owners", params={"limit": 2}).json()
        second = admin.get("/v1/owners", params={"limit": 2, "cursor": first["next_cursor"]}).json()
        assert [each["name"] for each in first["items"] + second["items"]] == ["anna", "bert", "carla", "local"]
        assert second["next_cursor"] is None

    @pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT])
    def test_are_nobody_else_s_business(self, team: Team, scope: Scope) -> None:
        client = team.client("anna", scope)
        answers = [
            client.get("/v1/owners"),
            client.get("/v1/owners/anna"),
            client.post("/v1/owners", json={"name": "bert"}),
            client.patch("/v1/owners/anna", json={"max_running": None}, headers={"If-Match": "*"}),
        ]
        assert [(answer.status_code, answer.json()["scope"]) for answer in answers] == [(403, "admin")] * 4

    @pytest.mark.parametrize("name", ["nobody", "%00", "a b", "a" * 5_000])
    def test_that_are_not_there_are_not_found(self, team: Team, name: str) -> None:
        admin = team.client("carla", Scope.ADMIN)
        change = admin.patch(f"/v1/owners/{name}", json={}, headers={"If-Match": "*"})
        for answer in (admin.get(f"/v1/owners/{name}"), change):
            assert (answer.status_code, answer.json()["code"]) == (404, "owner_not_found")

    @pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a\0", "a" * 64])
    def test_have_names_that_fit_into_a_path(self, team: Team, name: str) -> None:
        answer = team.client("carla", Scope.ADMIN).post("/v1/owners", json={"name": name})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/name")


class TestLimits:
    def test_change_one_by_one(self, team: Team) -> None:
        admin = team.client("carla", Scope.ADMIN)
        tag = admin.post("/v1/owners", json={"name": "anna", "limits": LIMITS}).headers["ETag"]

        def change(**limits: int | None) -> Any:
            nonlocal tag
            answer = admin.patch("/v1/owners/anna", json=limits, headers={"If-Match": tag})
            tag = answer.headers["ETag"]
            return answer.json()["limits"]

        assert change(max_running=None) == LIMITS | {"max_running": None}
        assert change(max_running=0, max_bytes=None) == LIMITS | {"max_running": 0, "max_bytes": None}
        assert change() == LIMITS | {"max_running": 0, "max_bytes": None}

    def test_are_not_overwritten_unseen(self, team: Team) -> None:
        admin = team.client("carla", Scope.ADMIN)
        tag = admin.post("/v1/owners", json={"name": "anna"}).headers["ETag"]
        admin.patch("/v1/owners/anna", json={"max_running": 1}, headers={"If-Match": tag}).raise_for_status()
        late = admin.patch("/v1/owners/anna", json={"max_daily": 1}, headers={"If-Match": tag})
        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
        assert late.json()["etag"] == admin.get("/v1/owners/anna").headers["ETag"]
        blind = admin.patch("/v1/owners/anna", json={"max_daily": 1})
        assert (blind.status_code, blind.json()["code"]) == (428, "precondition_required")
        weak = admin.patch("/v1/owners/anna", json={}, headers={"If-Match": f"W/{late.json()['etag']}"})
        assert weak.status_code == 412
        assert admin.get("/v1/owners/anna").json()["limits"] == NO_LIMITS | {"max_running": 1}

    @pytest.mark.parametrize(
        ("limit", "value"), [("max_running", -1), ("max_running", 2**31), ("max_daily", 0.5), ("max_bytes", 2**63)]
    )
    def test_have_bounds(self, team: Team, limit: str, value: float) -> None:
        admin = team.client("carla", Scope.ADMIN)
        answer = admin.patch("/v1/owners/local", json={limit: value}, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{limit}")


class TestProjects:
    def test_are_everybody_s_own(self, team: Team) -> None:
        anna, bert = team.client("anna"), team.client("bert")
        answer = anna.post("/v1/projects", json={"name": "lenses"})
        assert (answer.status_code, answer.headers["Location"]) == (201, "/v1/projects/lenses")
        assert anna.get("/v1/projects/lenses").json() == answer.json()
        assert [each["name"] for each in anna.get("/v1/projects").json()["items"]] == ["default", "lenses"]
        assert [each["name"] for each in bert.get("/v1/projects").json()["items"]] == ["default"]
        assert bert.get("/v1/projects/lenses").json()["code"] == "project_not_found"
        assert bert.post("/v1/projects", json={"name": "lenses"}).status_code == 201
        assert anna.post("/v1/projects", json={"name": "lenses"}).json()["code"] == "project_exists"

    def test_hold_jobs(self, team: Team, submission: Any) -> None:
        anna = team.client("anna")
        anna.post("/v1/projects", json={"name": "lenses"}).raise_for_status()
        assert anna.post("/v1/jobs", json=submission(project="lenses")).json()["project"] == "lenses"
        refused = team.client("bert").post("/v1/jobs", json=submission(project="lenses"))
        assert (refused.status_code, refused.json()["code"]) == (404, "project_not_found")

    def test_are_a_member_s_to_add(self, team: Team) -> None:
        answer = team.client("anna", Scope.READ).post("/v1/projects", json={"name": "lenses"})
        assert (answer.status_code, answer.json()["scope"]) == (403, "submit")

    @pytest.mark.parametrize("cursor", ["_w", "AAAA", "A" * 401])
    def test_a_cursor_is_a_page_s(self, team: Team, cursor: str) -> None:
        answer = team.client("anna").get("/v1/projects", params={"cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")
