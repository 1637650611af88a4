"""What every page has: headers, errors that are pages, files that are cached."""

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
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

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched


@on_sqlite
class TestHeaders:
    @pytest.mark.parametrize("path", ["/jobs", "/nothing"])
    def test_a_page_runs_and_shows_only_what_this_server_has(self, client: TestClient, path: str) -> None:
        answer = client.get(path, headers=HTML)

        assert set(answer.headers["Content-Security-Policy"].split("; ")) == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"

    def test_a_page_has_nothing_inline_and_nothing_from_elsewhere(self, client: TestClient) -> None:
        for path in ("/jobs", "/submit", "/compare", "/team", "/admin", "/nothing"):
            text = client.get(path, headers=HTML).text
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path
            assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), path
            assert not re.search(r"(?:src|href|action)=[\"'](?:https?:)?//", text), path


@on_sqlite
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


class TestOutage:
    def test_a_database_that_cannot_be_reached_is_a_page_to_be_tried_again(self, tmp_path: Path) -> None:
        url = "postgresql://nobody:sesame@127.0.0.1:1/nothing"
        settings = Settings(data_dir=tmp_path, database_url=url, auth="local")

        with local_client(create_app(settings)) as client:
            answer = client.get("/jobs", headers=HTML)

        assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert int(answer.headers["Retry-After"]) > 0
        assert "Database unreachable" in answer.text
        assert "sesame" not in answer.text


@on_sqlite
class TestFiles:
    def test_those_of_a_page_are_kept_for_good_and_are_there(self, client: TestClient) -> None:
        addresses = re.findall(r"(?:href|src)=\"(/static/[^\"]+)\"", client.get("/submit").text)

        assert len(addresses) > 3
        for address in addresses:
            answer = client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_one_without_its_version_is_asked_for_again(self, client: TestClient) -> None:
        for query in ("", "?v=0000000000000000"):
            first = client.get(f"/static/theme.js{query}")
            again = client.get(f"/static/theme.js{query}", headers={"If-None-Match": first.headers["ETag"]})
            assert first.headers["Cache-Control"] == "no-cache"
            assert first.headers["Content-Type"].startswith("text/javascript")
            assert (again.status_code, again.content) == (304, b"")

    def test_there_are_no_others(self, client: TestClient) -> None:
        for name in ("nothing.css", "..%2Frender.py", "%2e%2e", "..%5Crender.py", "base.html", "%00"):
            assert client.get(f"/static/{name}").status_code == 404, name


@on_sqlite
class TestReference:
    def test_names_every_operation_to_anybody(self, team: Team) -> None:
        stranger = team.with_key(None)

        text = stranger.get("/docs").text

        paths = stranger.get("/openapi.json").json()["paths"]
        assert len(paths) > 30
        assert all(f"<code>{path}</code>" in text for path in paths)
        assert 'aria-label="Main"' not in text  # there is nothing to go to before signing in
