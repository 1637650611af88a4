"""One story in the logs of the API and of a worker, as processes write them, and no secret in it."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

import processes
import services
from store import keys, logs, owners
from store.session import transaction
from store.values import Scope

SECONDS = 60


class TestSecrets:
    @pytest.mark.parametrize(
        ("line", "safe"),
        [
            ('{"a": "Bearer vp_3fa98c01d2b7_abcdefghijklmnopqrstuvwxyz"}', '{"a": "Bearer vp_3fa98c01d2b7_…"}'),
            ('{"authorization": "bearer eyJhbGciOi.x-y"}', '{"authorization": "bearer …"}'),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw+/=", "whsec_…"),
            ("postgresql+psycopg://anna:sesame@db:5432/x", "postgresql+psycopg://anna:…@db:5432/x"),
            ("redis://:sesame@broker/0", "redis://:…@broker/0"),
            ("https://s3/x?X-Amz-Signature=abc123&a=b", "https://s3/x?X-Amz-Signature=…&a=b"),
            ("http://host:80/a@b", "http://host:80/a@b"),
            ("the bearer", "the bearer"),
        ],
    )
    def test_are_cut_out(self, line: str, safe: str) -> None:
        assert logs.redacted(line) == safe


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestOneStory:
    def test_a_job_is_followed_from_its_request_to_its_end(
        self, database: Engine, database_url: str, valkey_url: str, tmp_path: Path
    ) -> None:
        environment = {
            "VITPRESS_DATA_DIR": str(tmp_path),
            "VITPRESS_DATABASE_URL": database_url,
            "VITPRESS_BROKER_URL": valkey_url,
            "VITPRESS_DATASETS_DIR": str(tmp_path / "datasets"),
            "VITPRESS_DEVICE": "cpu",
            "VITPRESS_SWEEP_SECONDS": "0.5",
            "PYTHONWARNINGS": "ignore",  # where root runs it, Celery warns of that before there are logs
        }
        broken_dataset(tmp_path)
        with transaction(database) as session:
            place = owners.create(session, "anna")
            _, key = keys.create(session, place.owner_id, name="a key", scopes=[Scope.SUBMIT])
        headers = {"Authorization": f"Bearer {key}", "X-Request-ID": "follow-me"}
        body = {"model": "sample:vit_fmnist", "dataset": "local:shoes", "recipe": {"target_ratio": 0.5}}
        port = services.free_port()
        with (
            processes.api(environment, tmp_path / "api.log", port),
            processes.worker(environment, tmp_path / "worker.log"),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client,
        ):
            hook = {"url": "https://8.8.8.8/", "events": ["dataset.ready"]}
            secret = client.post("/v1/webhooks", json=hook).json()["secret"]
            answer = client.post("/v1/jobs", json=body)
            assert answer.status_code == 202, answer.text
            job_id = answer.json()["id"]
            services.wait_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["state"] == "failed", SECONDS)
            client.get("/v1/nothing", headers={"Authorization": f"Bearer {key}x"})
            client.get("/healthz")
            services.wait_until(lambda: "attempt ended" in (tmp_path / "worker.log").read_text(), SECONDS)

        api, worker = lines(tmp_path / "api.log"), lines(tmp_path / "worker.log")
        [submitted] = [each for each in api if each.get("route") == "/v1/jobs" and each["method"] == "POST"]
        assert (submitted["request_id"], submitted["owner"], submitted["job_id"]) == ("follow-me", "anna", job_id)
        assert (submitted["status"], submitted["level"]) == (202, "info")
        assert submitted["duration_ms"] > 0
        assert all(each["message"] != "request" or each["route"] != "/healthz" for each in api)
        told = [each for each in worker if each.get("request_id") == "follow-me"]
        assert {each["job_id"] for each in told} == {job_id}
        assert {"attempt started", "attempt failed", "attempt ended"} <= {each["message"] for each in told}
        assert {each["attempt"] for each in told} == {1}
        for log in (tmp_path / "api.log", tmp_path / "worker.log"):
            for each in (key.split("_", 2)[2], secret.removeprefix("whsec_"), "Bearer vp_"):
                assert each not in log.read_text()


def broken_dataset(directory: Path) -> None:
    """``local:shoes``, which looks like one until its images are read."""
    for split in ("calibration", "test"):
        for name in ("boot", "sandal"):
            folder = directory / "datasets" / "shoes" / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(b"not an image")


def lines(log: Path) -> list[dict[str, Any]]:
    """Every line is JSON."""
    return [json.loads(line) for line in log.read_text().splitlines() if line]
