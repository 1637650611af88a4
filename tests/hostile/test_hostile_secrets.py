"""Secrets planted in everything that takes one, and looked for in everything that comes out of real processes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, create_engine, select

import processes
import services
from migrations.upgrade import upgrade
from store import keys, owners
from store.session import engine, transaction
from store.settings import Settings
from store.tables import Base
from store.values import Scope

SECONDS = 120
DATABASE, S3, HUB = "planted-database-word", "planted-s3-secret", "hf_plantedHubToken"
JOB = {"model": "sample:vit_digits", "dataset": "local:shoes", "recipe": {"method": "svd", "target_ratio": 0.5}}


class TestSettings:
    @pytest.mark.parametrize("wrong", [{"LEASE_SECONDS": "1"}, {"DEVICE": "toaster"}, {"MAX_ATTEMPTS": "-1"}])
    def test_that_are_wrong_are_said_without_the_others(self, wrong: dict[str, str]) -> None:
        given = {"DATABASE_URL": f"postgresql://a:{DATABASE}@h/x", "S3_SECRET_ACCESS_KEY": S3, "HUB_TOKEN": HUB} | wrong
        process = subprocess.run(
            [sys.executable, "-c", "from store.settings import Settings; Settings()"],
            env=os.environ | {f"VITPRESS_{name}": value for name, value in given.items()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode != 0
        assert next(iter(wrong)).lower() in process.stderr
        assert not [each for each in (DATABASE, S3, HUB) if each in process.stderr]

    def test_that_are_shown_show_no_secret(self) -> None:
        shown = repr(Settings(s3_secret_access_key=S3, hub_token=HUB))
        assert S3 not in shown
        assert HUB not in shown


class TestEverythingThatComesOut:
    def test_of_a_day_s_work_holds_no_secret(self, own_database: str, valkey_url: str, tmp_path: Path) -> None:
        (tmp_path / "datasets" / "shoes" / "boot").mkdir(parents=True)
        (tmp_path / "datasets" / "shoes" / "boot" / "1.png").write_bytes(b"not an image")
        environment = {
            "VITPRESS_DATA_DIR": str(tmp_path),
            "VITPRESS_DATABASE_URL": own_database,
            "VITPRESS_BROKER_URL": valkey_url,
            "VITPRESS_S3_ACCESS_KEY_ID": "test",
            "VITPRESS_S3_SECRET_ACCESS_KEY": S3,
            "VITPRESS_DATASETS_DIR": str(tmp_path / "datasets"),
            "VITPRESS_HUB_TOKEN": HUB,
            "VITPRESS_DEVICE": "cpu",
            "VITPRESS_SWEEP_SECONDS": "0.5",
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "PYTHONWARNINGS": "ignore",
        }
        database = engine(Settings(database_url=own_database))
        upgrade(database)
        with transaction(database) as session:
            place = owners.create(session, "anna")
            _, key = keys.create(session, place.owner_id, name="a key", scopes=[Scope.ADMIN])
        answers: list[str] = []
        port = services.free_port()
        with (
            processes.api(environment, tmp_path / "api.log", port),
            processes.worker(environment, tmp_path / "worker.log"),
        ):
            url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
            client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
            client.event_hooks["response"].append(lambda answer: answers.append(answer.read().decode()))
            with client:
                hook = client.post("/v1/webhooks", json={"url": "https://8.8.8.8/"}).json()
                answers.pop()  # the one that has the secret, once
                client.post(f"/v1/webhooks/{hook['id']}/test")
                job_id = client.post("/v1/jobs", json=JOB).json()["id"]
                client.post("/v1/models", json={"name": "small", "hub_id": "timm/vit_tiny_patch16_224.augreg_in21k"})
                client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"})
                client.get(f"/v1/jobs?cursor={key}")
                client.get(f"/v1/datasets/own:{key[:60]}")
                services.wait_until(lambda: _ended(client, f"/v1/jobs/{job_id}", {"failed"}), SECONDS)
                services.wait_until(lambda: _ended(client, "/v1/models/own:small", {"rejected"}), SECONDS)
                for path in (
                    "/v1/keys",
                    "/v1/webhooks",
                    f"/v1/webhooks/{hook['id']}/deliveries",
                    "/metrics",
                    "/readyz",
                ):
                    client.get(path)
        secret = hook["secret"].removeprefix("whsec_")
        planted = (DATABASE, S3, HUB, key.split("_", 2)[2], secret)
        logs = [(tmp_path / name).read_text() for name in ("api.log", "worker.log")]
        assert all("request" in log or "attempt" in log for log in logs)
        assert not [each for each in planted for log in logs if each in log]
        assert not [each for each in planted if each in "".join(answers).replace(f"own:{key[:60]}", "")]
        rows = _rows(database)
        assert "webhooks" in rows
        assert rows["webhooks"].count(secret) == 1  # what messages are signed with must be there
        assert not [each for each in planted[:-1] for text in rows.values() if each in text]
        assert not [name for name, text in rows.items() if secret in text and name != "webhooks"]
        database.dispose()


@pytest.fixture
def own_database(postgres_server: str) -> Iterator[str]:
    """Empty, and reached with a word that the test server does not ask for."""
    with services.new_database(postgres_server) as url:
        given = create_engine(url.replace("postgresql://", "postgresql+psycopg://")).url
        if given.password is not None:
            pytest.fail("the test server wants a word of its own; give it one without")
        yield given.set(password=DATABASE).render_as_string(hide_password=False)


def _ended(client: httpx.Client, path: str, states: set[str]) -> bool:
    return client.get(path).json().get("state") in states


def _rows(database: Engine) -> dict[str, str]:
    """All that every table holds, as text."""
    with database.connect() as connection:
        return {
            table.name: json.dumps([list(row) for row in connection.execute(select(table))], default=str)
            for table in Base.metadata.sorted_tables
        }
