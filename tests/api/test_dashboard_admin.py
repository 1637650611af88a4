"""The administrators' page: owners and their limits, keys, and workers that take jobs or not."""

import re
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from store import workers
from store.session import engine, transaction
from store.settings import Settings
from store.states import Queue
from store.values import Fitness, Scope
from team import Team

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def admin(team: Team) -> TestClient:
    return team.browser("root", Scope.ADMIN)


def made_key(page: str) -> str:
    found = re.search(r'id="made">(vp_[^<]+)<', page)
    assert found is not None, page
    return found[1]


def seen(client: TestClient, owner: str) -> str:
    found = re.search(r'name="seen" value="([^"]+)"', client.get(f"/admin/owners/{owner}").text)
    assert found is not None
    return found[1].replace("&#34;", '"')


class TestWhoMayComeIn:
    @pytest.mark.parametrize("scope", [Scope.READ, Scope.SUBMIT])
    def test_administrators_alone(self, team: Team, scope: Scope) -> None:
        member = team.browser("anna", scope)

        pages = [member.get(path) for path in ("/admin", "/admin/owners/anna")]
        forms = [
            member.post("/admin/owners", data={"name": "mallory"}),
            member.post("/admin/owners/anna/limits", data={"seen": "x"}),
            member.post("/admin/owners/anna/keys", data={"label": "mine", "role": "admin"}),
            member.post("/admin/keys/0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57/revoke"),
            member.post("/admin/keys/0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57/rotate", data={"overlap": "0"}),
            member.post("/admin/workers", data={"name": "a worker", "draining": "true"}),
        ]

        for answer in (*pages, *forms):
            assert (answer.status_code, answer.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
            assert 'href="/admin"' not in answer.text

    @pytest.mark.parametrize("origin", ["http://evil.test", "null"])
    def test_no_form_of_another_site(self, team: Team, admin: TestClient, origin: str) -> None:
        there = {"Origin": origin}

        answers = [
            admin.post("/admin/owners", data={"name": "mallory"}, headers=there),
            admin.post("/admin/owners/root/keys", data={"label": "theirs", "role": "admin"}, headers=there),
        ]

        assert [answer.status_code for answer in answers] == [403, 403]
        assert "mallory" not in admin.get("/admin").text
        assert "theirs" not in admin.get("/admin/owners/root").text


class TestOwners:
    def test_are_added_with_limits(self, admin: TestClient) -> None:
        added = admin.post(
            "/admin/owners", data={"name": "vision", "max_running": "3", "max_daily": "", "max_gb": "1.5"}
        )

        assert (added.status_code, added.headers["Location"]) == (303, "/admin/owners/vision")
        limits = admin.get("/v1/owners/vision").json()["limits"]
        assert limits == {"max_running": 3, "max_daily": None, "max_bytes": 1_500_000_000}

    def test_are_listed_with_what_they_may(self, admin: TestClient) -> None:
        admin.post("/admin/owners", data={"name": "vision", "max_running": "31", "max_gb": "17"})

        page = admin.get("/admin").text

        assert re.search(r">vision</a>.*?31.*?17 GB", page, re.DOTALL)

    def test_have_their_limits_changed_to_the_byte(self, admin: TestClient) -> None:
        admin.post("/admin/owners", data={"name": "vision", "max_gb": "0.000000007"})
        assert 'value="0.000000007"' in admin.get("/admin/owners/vision").text

        changed = admin.post(
            "/admin/owners/vision/limits",
            data={"seen": seen(admin, "vision"), "max_running": "", "max_daily": "11", "max_gb": "0.000000007"},
        )

        assert changed.status_code == 303
        limits = admin.get("/v1/owners/vision").json()["limits"]
        assert limits == {"max_running": None, "max_daily": 11, "max_bytes": 7}

    def test_are_not_changed_by_a_form_that_is_out_of_date(self, admin: TestClient) -> None:
        admin.post("/admin/owners", data={"name": "vision"})
        before = seen(admin, "vision")
        admin.post("/admin/owners/vision/limits", data={"seen": before, "max_daily": "11"})

        late = admin.post("/admin/owners/vision/limits", data={"seen": before, "max_daily": "13"})

        assert late.status_code == 412
        assert "Somebody else was faster" in late.text
        assert admin.get("/v1/owners/vision").json()["limits"]["max_daily"] == 11

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"name": "no spaces"}, "name"),
            ({"name": "vision", "max_running": "-1"}, "max_running"),
            ({"name": "vision", "max_daily": "many"}, "max_daily"),
            ({"name": "vision", "max_gb": "much"}, "max_gb"),
            ({"name": "vision", "max_gb": "NaN"}, "max_gb"),
            ({"name": "vision", "max_gb": "1e30"}, "max_bytes"),
        ],
    )
    def test_are_refused_by_what_is_wrong(self, admin: TestClient, fields: dict[str, str], field: str) -> None:
        answer = admin.post("/admin/owners", data=fields)

        assert answer.status_code == 422
        assert f"<code>{field}</code>" in answer.text
        assert "vision" not in admin.get("/admin").text

    def test_of_a_name_that_is_taken_are_refused(self, admin: TestClient) -> None:
        assert admin.post("/admin/owners", data={"name": "root"}).status_code == 409

    def test_that_are_not_there_are_not_found(self, admin: TestClient) -> None:
        assert admin.get("/admin/owners/nobody").status_code == 404


class TestKeys:
    def test_are_made_and_shown_once(self, team: Team, admin: TestClient) -> None:
        made = admin.post(
            "/admin/owners/root/keys", data={"label": "nightly", "role": "member", "expires": "2031-03-07"}
        )

        key = made_key(made.text)
        assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
        whoami = team.with_key(key).get("/v1/whoami").json()
        assert (whoami["role"], whoami["key"]["expires_at"]) == ("member", "2031-03-07T23:59:59.999999Z")
        assert key not in admin.get("/admin/owners/root").text

    def test_are_rotated(self, team: Team, admin: TestClient) -> None:
        made = made_key(admin.post("/admin/owners/root/keys", data={"label": "nightly", "role": "viewer"}).text)
        key_id = team.with_key(made).get("/v1/whoami").json()["key"]["id"]

        rotated = admin.post(f"/admin/keys/{key_id}/rotate", data={"overlap": "0"})

        assert rotated.status_code == 201
        assert team.with_key(made_key(rotated.text)).get("/v1/whoami").json()["role"] == "viewer"
        assert team.with_key(made).get("/v1/whoami").status_code == 401

    def test_are_revoked(self, team: Team, admin: TestClient) -> None:
        made = made_key(admin.post("/admin/owners/root/keys", data={"label": "nightly", "role": "viewer"}).text)
        key_id = team.with_key(made).get("/v1/whoami").json()["key"]["id"]

        revoked = admin.post(f"/admin/keys/{key_id}/revoke")

        assert (revoked.status_code, revoked.headers["Location"]) == (303, "/admin/owners/root")
        assert team.with_key(made).get("/v1/whoami").status_code == 401

    def test_the_last_one_of_an_administrator_stays(self, admin: TestClient) -> None:
        key_id = admin.get("/v1/whoami").json()["key"]["id"]

        assert admin.post(f"/admin/keys/{key_id}/revoke").status_code == 409
        assert admin.get("/admin").status_code == 200

    @pytest.mark.parametrize("path", ["revoke", "rotate"])
    @pytest.mark.parametrize("key_id", ["no-id", "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57"])
    def test_that_are_not_there_are_not_found(self, admin: TestClient, key_id: str, path: str) -> None:
        assert admin.post(f"/admin/keys/{key_id}/{path}", data={"overlap": "0"}).status_code == 404

    @pytest.mark.parametrize("day", ["tomorrow", "2001-01-01", "2031-02-30"])
    def test_that_end_on_no_day_to_come_are_refused(self, admin: TestClient, day: str) -> None:
        answer = admin.post("/admin/owners/root/keys", data={"label": "x", "role": "viewer", "expires": day})

        assert answer.status_code == 422
        assert "expires" in answer.text


class TestWorkers:
    @pytest.fixture(autouse=True)
    def sign_on(self, settings: Settings) -> None:
        with transaction(engine(settings)) as session:
            workers.sign_on(session, "shed:17", [Queue.CPU], Fitness(), "12 cores")

    def test_are_drained_and_resumed(self, settings: Settings, admin: TestClient) -> None:
        def draining() -> bool:
            with transaction(engine(settings), read_only=True) as session:
                return workers.list_(session, timedelta(hours=1))[0].draining

        assert "Drain<" in admin.get("/admin").text
        assert admin.post("/admin/workers", data={"name": "shed:17", "draining": "true"}).status_code == 303
        assert draining()
        assert "Resume<" in admin.get("/admin").text
        assert admin.post("/admin/workers", data={"name": "shed:17", "draining": "false"}).status_code == 303
        assert not draining()

    def test_that_are_not_there_are_not_found(self, admin: TestClient) -> None:
        assert admin.post("/admin/workers", data={"name": "barn:3", "draining": "true"}).status_code == 404
