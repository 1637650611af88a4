"""GET /healthz and /readyz."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.app import create_app
from store.settings import Settings


class TestHealth:
    def test_is_ok_even_if_nothing_else_is(self, tmp_path: Path) -> None:
        settings = Settings(
            data_dir=tmp_path, database_url="postgresql://127.0.0.1:1/nothing", broker_url="redis://127.0.0.1:1"
        )

        with TestClient(create_app(settings)) as client:
            answer = client.get("/healthz")

        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


class TestReadiness:
    def test_is_ok_when_all_services_answer(self, client: TestClient) -> None:
        answer = client.get("/readyz")

        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "checks": {"database": "ok", "broker": "ok", "blobs": "ok"}}

    def test_names_the_broker_that_does_not_answer(self, settings: Settings) -> None:
        without = settings.model_copy(update={"broker_url": "redis://:sesame@127.0.0.1:1"})

        with TestClient(create_app(without)) as client:
            answer = client.get("/readyz")

        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["checks"] == {"database": "ok", "broker": "unreachable", "blobs": "ok"}
        assert "sesame" not in answer.text
        assert "Retry-After" in answer.headers

    def test_names_the_database_whose_schema_is_missing(self, tmp_path: Path, settings: Settings) -> None:
        empty = settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/empty.db"})

        with TestClient(create_app(empty)) as client:
            answer = client.get("/readyz")

        assert answer.json()["checks"] == {"database": "unreachable", "broker": "ok", "blobs": "ok"}

    def test_names_the_blobs_that_cannot_be_read(self, tmp_path: Path, settings: Settings) -> None:
        lost = tmp_path / "lost"
        elsewhere = settings.model_copy(update={"blob_url": f"file://{lost}"})

        with TestClient(create_app(elsewhere)) as client:
            assert client.get("/readyz").status_code == 200
            lost.rmdir()
            lost.touch()
            answer = client.get("/readyz")

        assert answer.json()["checks"] == {"database": "ok", "broker": "ok", "blobs": "unreachable"}
