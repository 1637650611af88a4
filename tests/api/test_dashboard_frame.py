"""What every page has: headers, errors that are pages, files that are cached."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving import local_client
from store.settings import Settings
from team import Team

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched


class TestHeaders:
    @pytest.mark.parametrize("path", ["/docs", "/nothing"])
    def test_a_page_runs_and_shows_only_what_this_server_has(self, client: TestClient, path: str) -> None:
        answer = client.get(path, headers=HTML)

        assert set(answer.headers["Content-Security-Policy"].split("; ")) == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("path", ["/docs", "/nothing"])
    def test_a_page_has_nothing_inline_and_nothing_from_elsewhere(self, client: TestClient, path: str) -> None:
        text = client.get(path, headers=HTML).text

        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))
        assert not re.search(r"(?:src|href|action)=[\"'](?:https?:)?//", text)


class TestErrors:
    def test_are_pages_for_browsers(self, client: TestClient) -> None:
        answer = client.get("/nothing", headers=HTML)

        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert "Not Found" in answer.text
        assert answer.headers["X-Request-ID"] in answer.text

    def test_are_problems_for_browsers_under_v1_too(self, client: TestClient) -> None:
        answer = client.get("/v1/nothing", headers=HTML)

        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")

    def test_another_method_is_a_page_that_names_the_allowed_ones(self, client: TestClient) -> None:
        answer = client.post("/docs", headers=HTML)

        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        assert "Method Not Allowed" in answer.text

    def test_a_defect_is_a_page_that_says_nothing_of_its_cause(self, app: FastAPI) -> None:
        @app.get("/broken")
        def break_() -> None:
            raise RuntimeError("the password is sesame")

        with local_client(app) as client:
            answer = client.get("/broken", headers=HTML)

        assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/html; charset=utf-8")
        assert answer.headers["X-Request-ID"] in answer.text
        assert "sesame" not in answer.text

    def test_what_a_path_says_is_text(self, client: TestClient) -> None:
        answer = client.get("/nothing/<script>alert(1)</script>", headers=HTML)

        assert "<script>alert" not in answer.text


class TestFiles:
    def test_those_of_a_page_are_kept_for_good_and_are_there(self, client: TestClient) -> None:
        addresses = re.findall(r"(?:href|src)=\"(/static/[^\"]+)\"", client.get("/docs").text)

        assert len(addresses) > 3
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize("query", ["", "?v=0000000000000000"])
    def test_one_without_its_version_is_asked_for_again(self, client: TestClient, query: str) -> None:
        first = client.get(f"/static/theme.js{query}")
        again = client.get(f"/static/theme.js{query}", headers={"If-None-Match": first.headers["ETag"]})

        assert first.headers["Cache-Control"] == "no-cache"
        assert first.headers["Content-Type"].startswith("text/javascript")
        assert (again.status_code, again.content) == (304, b"")

    @pytest.mark.parametrize("name", ["nothing.css", "..%2Frender.py", "%2e%2e", "..%5Crender.py", "base.html"])
    def test_there_are_no_others(self, client: TestClient, name: str) -> None:
        assert client.get(f"/static/{name}").status_code == 404


class TestReference:
    def test_names_every_operation(self, client: TestClient) -> None:
        text = client.get("/docs").text

        paths = client.get("/openapi.json").json()["paths"]
        assert len(paths) > 30
        assert all(f"<code>{path}</code>" in text for path in paths)

    def test_is_for_anybody(self, settings: Settings) -> None:
        with Team(settings) as team:
            answer = team.with_key(None).get("/docs")

        assert answer.status_code == 200
        assert 'aria-label="Main"' not in answer.text
