"""Signing in to the dashboard: what the cookie is, whom it lets in, and who cannot use it."""

import re
from collections.abc import Callable
from http.cookies import Morsel, SimpleCookie
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import text

from api.throttle import BURST
from store import keys
from store.owners import LOCAL_IDENTITY
from store.session import engine, transaction
from store.values import Scope
from team import Team
from worker.sweep import sweep

HERE = {"Origin": "http://vitpress.test"}
ELSEWHERE: list[dict[str, str]] = [
    {},
    {"Origin": "null"},
    {"Origin": "http://evil.test"},
    {"Origin": "http://vitpress.test.evil.test"},
    {"Origin": "http://vitpress.test:8080"},
    {"Origin": "http://[vitpress.test"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://vitpress.test"},
    {"Sec-Fetch-Site": "none"},
]
ELSEWHERE_TO = [
    "https://evil.test/",
    "//evil.test",
    "/\\evil.test",
    "\\\\evil.test",
    "/\t/evil.test",
    "/\n/evil.test",
    " //evil.test",
    "javascript:alert(1)",
    "evil.test",
    "",
]
Submission = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Browser:
    """Follows nothing by itself, and sends what browsers send."""

    def __init__(self, team: Team, base: str = "http://vitpress.test") -> None:
        self.client: TestClient = team.with_key(None)
        self.client.base_url = base
        self.client.follow_redirects = False
        self.client.headers["Accept"] = "text/html"
        self.here = {"Origin": base}

    def sign_in(self, key: str, **fields: str) -> Response:
        return self.client.post("/sign-in", data={"key": key} | fields, headers=self.here)

    def is_known(self) -> bool:
        return self.client.get("/v1/whoami").status_code == 200

    @property
    def token(self) -> str | None:
        return self.client.cookies.get("vitpress")


@pytest.fixture
def anna(team: Team) -> Browser:
    """Signed in, as one who may submit."""
    browser = Browser(team)
    assert browser.sign_in(team.key("anna", Scope.SUBMIT)).status_code == 303
    return browser


def cookie(answer: Response, name: str = "vitpress") -> Morsel[str]:
    return SimpleCookie(answer.headers["Set-Cookie"])[name]


class TestSigningIn:
    def test_is_asked_of_whoever_is_unknown_and_leads_back(self, team: Team) -> None:
        browser = Browser(team)

        answer = browser.client.get("/jobs?state=failed&model=a%20b")

        assert answer.status_code == 303
        assert answer.headers["Location"] == "/sign-in?next=%2Fjobs%3Fstate%3Dfailed%26model%3Da%2520b"
        form = browser.client.get(answer.headers["Location"]).text
        found = re.search('name="next" value="([^"]*)"', form)
        assert found is not None
        then = found[1].replace("&amp;", "&")
        assert browser.sign_in(team.key("anna", Scope.READ), next=then).headers["Location"] == (
            "/jobs?state=failed&model=a%20b"
        )

    def test_lets_in_with_what_the_key_may(self, team: Team) -> None:
        browser = Browser(team)

        browser.sign_in(f" {team.key('anna', Scope.READ)}\n")  # as it is pasted

        known = browser.client.get("/v1/whoami").json()
        assert (known["owner"], known["scopes"]) == ("anna", ["read"])

    def test_again_leads_on(self, anna: Browser) -> None:
        answer = anna.client.get("/sign-in?next=/team")

        assert (answer.status_code, answer.headers["Location"]) == (303, "/team")

    def test_with_a_wrong_key_asks_again(self, team: Team) -> None:
        browser = Browser(team)

        answer = browser.sign_in("vp_0123456789ab_" + "x" * 43, next="/team")

        assert answer.status_code == 401
        assert "no valid key" in answer.text
        assert 'value="/team"' in answer.text
        assert "x" * 43 not in answer.text
        assert "Set-Cookie" not in answer.headers
        assert not browser.is_known()

    def test_is_not_for_guessing(self, team: Team) -> None:
        browser, key = Browser(team), team.key("anna", Scope.READ)

        statuses = [browser.sign_in(f"vp_0123456789ab_{'x' * 42}{n % 10}").status_code for n in range(BURST + 1)]
        answer = browser.sign_in(key)

        assert statuses == [401] * BURST + [429]
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0

    def test_never_leads_to_another_server(self, anna: Browser, team: Team) -> None:
        key = team.key("anna", Scope.READ)

        for then in ELSEWHERE_TO:
            answer = anna.client.get("/sign-in", params={"next": then})
            posted = Browser(team).sign_in(key, next=then)
            assert (answer.status_code, answer.headers["Location"]) == (303, "/"), then
            assert (posted.status_code, posted.headers["Location"]) == (303, "/"), then

    def test_is_not_done_for_anybody_by_another_site(self, team: Team) -> None:
        browser, key = Browser(team), team.key("evil", Scope.READ)

        for headers in ELSEWHERE:
            answer = browser.client.post("/sign-in", data={"key": key}, headers=headers)
            assert answer.status_code == 403, headers
            assert "Set-Cookie" not in answer.headers


class TestCookie:
    def test_is_out_of_reach_of_scripts_and_other_sites(self, team: Team) -> None:
        flags = cookie(Browser(team).sign_in(team.key("anna", Scope.READ)))

        assert (flags["httponly"], flags["samesite"], flags["path"], flags["domain"]) == (True, "strict", "/", "")
        assert int(flags["max-age"]) == 7 * 24 * 3600
        assert len(flags.value) == 43

    @pytest.mark.parametrize("base", ["http://vitpress.test", "https://vitpress.test"])
    def test_is_secure_where_the_connection_is(self, team: Team, base: str) -> None:
        https = base.startswith("https")
        browser = Browser(team, base)

        flags = cookie(browser.sign_in(team.key("anna", Scope.READ)), "__Host-vitpress" if https else "vitpress")

        assert bool(flags["secure"]) == https
        assert browser.is_known()

    def test_is_secure_where_a_proxy_ends_tls(self, team: Team) -> None:
        headers = HERE | {"X-Forwarded-Proto": "https"}

        answer = Browser(team).client.post("/sign-in", data={"key": team.key("anna", Scope.READ)}, headers=headers)

        assert cookie(answer, "__Host-vitpress")["secure"]

    def test_is_never_the_one_that_the_browser_came_with(self, team: Team) -> None:
        browser = Browser(team)
        browser.client.cookies.set("vitpress", "f" * 43)

        planted = cookie(browser.sign_in(team.key("anna", Scope.READ))).value

        assert planted != "f" * 43
        stranger = Browser(team)
        stranger.client.cookies.set("vitpress", "f" * 43)
        assert not stranger.is_known()

    def test_before_a_second_sign_in_is_worth_nothing_after_it(self, team: Team, anna: Browser) -> None:
        before = Browser(team)
        before.client.cookies.set("vitpress", str(anna.token))
        assert before.is_known()

        anna.sign_in(team.key("bert", Scope.READ))

        assert not before.is_known()
        assert anna.client.get("/v1/whoami").json()["owner"] == "bert"


class TestSession:
    def test_sees_what_its_owner_has_and_nothing_else(self, team: Team, anna: Browser, submission: Submission) -> None:
        theirs = team.client("bert").post("/v1/jobs", json=submission()).json()
        mine = team.client("anna").post("/v1/jobs", json=submission()).json()

        assert [job["id"] for job in anna.client.get("/v1/jobs").json()["items"]] == [mine["id"]]
        assert anna.client.get(f"/v1/jobs/{theirs['id']}").status_code == 404

    def test_may_what_its_key_may(self, team: Team, submission: Submission) -> None:
        browser = Browser(team)
        browser.sign_in(team.key("anna", Scope.READ))

        answer = browser.client.post("/v1/jobs", json=submission(), headers=HERE)

        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")

    def test_ends_with_a_sign_out(self, team: Team, anna: Browser) -> None:
        copy = Browser(team)
        copy.client.cookies.set("vitpress", str(anna.token))

        answer = anna.client.post("/sign-out", headers=HERE)

        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
        assert cookie(answer)["max-age"] == "0"
        assert not anna.is_known()
        assert not copy.is_known()

    def test_ends_with_its_key(self, team: Team) -> None:
        admin, browser = team.client("root", Scope.ADMIN), Browser(team)
        made = admin.post("/v1/keys", json={"owner": "root", "name": "laptop", "role": "viewer"})
        assert made.status_code == 201, made.text
        browser.sign_in(made.json()["key"])
        assert browser.is_known()

        assert admin.delete(f"/v1/keys/{made.json()['id']}").status_code in {200, 204}

        assert not browser.is_known()
        assert browser.client.get("/jobs").headers["Location"].startswith("/sign-in")

    def test_leaves_nothing_behind_once_it_is_swept(self, team: Team, anna: Browser) -> None:
        database = engine(team.settings)
        with transaction(database) as session:
            [key] = keys.list_(session, team.place("anna").owner_id).items
            keys.revoke(session, key.id, LOCAL_IDENTITY)
        assert not anna.is_known()

        sweep(database, team.settings)

        with database.begin() as connection:
            assert connection.execute(text("SELECT count(*) FROM sign_ins")).scalar() == 0

    def test_does_not_matter_where_a_key_is_sent(self, team: Team, anna: Browser, submission: Submission) -> None:
        key = team.key("bert", Scope.SUBMIT)

        answer = anna.client.post("/v1/jobs", json=submission(), headers={"Authorization": f"Bearer {key}"})

        assert answer.status_code == 202
        assert team.with_key(key).get(answer.json()["links"]["self"]).status_code == 200


class TestOtherSites:
    def test_change_nothing_through_the_api(self, anna: Browser, submission: Submission) -> None:
        for headers in ELSEWHERE:
            answer = anna.client.post("/v1/jobs", json=submission(), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "other_site"), headers

        assert anna.client.get("/v1/jobs").json()["items"] == []

    def test_do_not_sign_anybody_out(self, anna: Browser) -> None:
        for headers in ELSEWHERE:
            assert anna.client.post("/sign-out", headers=headers).status_code == 403, headers

        assert anna.is_known()

    def test_are_not_the_own_pages(self, anna: Browser, submission: Submission) -> None:
        for headers in (HERE, {"Sec-Fetch-Site": "same-origin"}):
            assert anna.client.post("/v1/jobs", json=submission(), headers=headers).status_code == 202, headers
