"""POST, GET, DELETE /v1/models: what owners bring, and a worker's check of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from fake_hub import Hub
from hands import Worker
from store.session import session_factory, transaction
from store.settings import Settings
from store.tables import OwnModel, Trash
from store.values import Scope
from team import Team
from worker import runner

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SAMPLE = Path(__file__).parents[2] / "samples" / "vit_digits"
CONFIG = json.loads((SAMPLE / "config.json").read_text())
WEIGHTS = (SAMPLE / "model.safetensors").read_bytes()

Bring = Callable[..., str]


@pytest.fixture
def upload(uploaded: Bring) -> Bring:
    """Of the sample's weights, if of nothing else."""
    return lambda data=WEIGHTS, **options: uploaded(data, **options)


def body(upload_id: str, **changes: Any) -> dict[str, Any]:
    given = {
        "name": "digits",
        "upload": upload_id,
        "architecture": CONFIG["architecture"],
        "kwargs": CONFIG["kwargs"],
        "preprocessing": {name: CONFIG["preprocessing"][name] for name in ("mean", "std")},
        "class_names": CONFIG["class_names"],
    }
    return given | changes


@pytest.fixture
def check(settings: Settings, worker: Worker) -> Callable[[], None]:
    """What a worker does about the model that waits."""

    def check() -> None:
        claim = worker.claim()
        with runner.outcome_of(claim, worker.engine):
            runner.run(claim, settings)

    return check


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr("core.hub.ENDPOINT", hub.url)
    with hub.serving():
        yield hub


class TestAnUpload:
    def test_becomes_a_model_that_jobs_compress_once_it_is_checked(
        self,
        client: TestClient,
        upload: Bring,
        check: Callable[[], None],
        settings: Settings,
        worker: Worker,
        submission: Callable[..., dict[str, Any]],
    ) -> None:
        upload_id = upload()
        answer = client.post("/v1/models", json=body(upload_id))
        assert (answer.status_code, answer.headers["Location"]) == (202, "/v1/models/own:digits")
        assert answer.json() == client.get("/v1/models").json()["items"][0]
        assert (answer.json()["state"], answer.json()["parameters"]) == ("checking", None)
        assert not (settings.upload_dir / upload_id).exists()
        job = submission(model="own:digits", dataset="sample:digits", recipe={"method": "svd", "target_ratio": 0.3})
        [error] = client.post("/v1/jobs", json=job).json()["errors"]
        assert (error["pointer"], error["code"]) == ("/model", "model_not_ready")

        check()
        shown = client.get("/v1/models/own:digits").json()
        same = client.get("/v1/models/sample:vit_digits").json()
        assert shown["state"] == "ready", shown
        assert {name: shown[name] for name in ("shape", "parameters", "macs", "input_size", "num_classes")} == {
            name: same[name] for name in ("shape", "parameters", "macs", "input_size", "num_classes")
        }
        assert client.post("/v1/plans", json={name: job[name] for name in ("model", "recipe")}).status_code == 200
        submitted = client.post("/v1/jobs", json=job)
        assert submitted.status_code == 202
        assert client.delete("/v1/models/own:digits").json()["code"] == "model_in_use"

        check()
        done = client.get(submitted.json()["links"]["self"]).json()
        assert done["state"] == "succeeded", done
        assert client.delete("/v1/models/own:digits").status_code == 200

    def test_that_does_not_fit_is_rejected_and_says_where(
        self, client: TestClient, upload: Bring, check: Callable[[], None]
    ) -> None:
        kwargs = CONFIG["kwargs"] | {"num_classes": 7}
        client.post("/v1/models", json=body(upload(), kwargs=kwargs, class_names=None)).raise_for_status()
        check()
        shown = client.get("/v1/models/own:digits").json()
        assert (shown["state"], shown["error"]["code"]) == ("rejected", "checkpoint_mismatch")
        assert shown["differences"]["shape"]["total"] == 2
        assert any("head.bias: expected [7], got [10]" in each for each in shown["differences"]["shape"]["names"])

    def test_that_is_a_pickle_is_rejected(self, client: TestClient, upload: Bring, check: Callable[[], None]) -> None:
        client.post("/v1/models", json=body(upload(b"\x80\x02}q\x00." * 9))).raise_for_status()
        check()
        shown = client.get("/v1/models/own:digits").json()
        assert (shown["state"], shown["error"]["code"]) == ("rejected", "bad_checkpoint")
        assert "pickle" in shown["error"]["message"]

    def test_is_used_once_and_a_name_once(self, client: TestClient, upload: Bring) -> None:
        first, second = upload(), upload()
        client.post("/v1/models", json=body(first)).raise_for_status()
        again = client.post("/v1/models", json=body(first, name="more"))
        assert again.json()["errors"][0]["code"] == "upload_not_found"
        taken = client.post("/v1/models", json=body(second))
        assert (taken.status_code, taken.json()["code"]) == (409, "model_exists")

    def test_is_its_owners_alone(self, client: TestClient, team: Team, upload: Bring) -> None:
        anna, bert = team.client("anna"), team.client("bert")
        upload_id = upload(owner_id=team.place("anna").owner_id)
        assert bert.post("/v1/models", json=body(upload_id)).json()["errors"][0]["code"] == "upload_not_found"
        assert team.client("anna", Scope.READ).post("/v1/models", json=body(upload_id)).status_code == 403
        anna.post("/v1/models", json=body(upload_id)).raise_for_status()
        assert bert.get("/v1/models/own:digits").status_code == 404
        assert bert.delete("/v1/models/own:digits").status_code == 404
        assert "own:" not in bert.get("/v1/models").text


class TestAModelOfTheHub:
    BODY: dict[str, Any] = {"name": "small", "hub_id": "timm/digits"}  # noqa: RUF012 - of a test

    def test_is_fetched_once_and_kept(
        self, client: TestClient, check: Callable[[], None], hub: Hub, settings: Settings
    ) -> None:
        hub.put(
            "timm/digits",
            {
                "architecture": CONFIG["architecture"],
                "model_args": CONFIG["kwargs"],
                "pretrained_cfg": CONFIG["preprocessing"],
                "label_names": CONFIG["class_names"],
            },
            WEIGHTS,
        )
        answer = client.post("/v1/models", json=self.BODY)
        assert (answer.status_code, answer.json()["hub_id"]) == (202, "timm/digits")
        check()
        shown = client.get("/v1/models/own:small").json()
        assert (shown["state"], shown["architecture"]) == ("ready", CONFIG["architecture"]), shown
        assert shown["size"] == len(WEIGHTS)
        [kept] = (settings.data_dir / "blobs" / "models").rglob("*.safetensors")
        assert kept.read_bytes() == WEIGHTS

    def test_that_cannot_be_reached_is_rejected(
        self, client: TestClient, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("core.hub.ENDPOINT", "http://127.0.0.1:9")
        client.post("/v1/models", json=self.BODY).raise_for_status()
        check()
        shown = client.get("/v1/models/own:small").json()
        assert (shown["state"], shown["error"]["code"]) == ("rejected", "hub_unreachable")

    @pytest.mark.parametrize("hub_id", ["someone/vit", "timm/../x", "hf-hub:timm/x", "local-dir:/etc", "timm"])
    def test_that_is_not_allowed_is_refused_at_once(self, client: TestClient, hub_id: str) -> None:
        answer = client.post("/v1/models", json=self.BODY | {"hub_id": hub_id})
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["pointer"], error["code"]) == (422, "/hub_id", "hub_not_allowed")


class TestRefusals:
    @pytest.mark.parametrize(
        "changes",
        [
            {"architecture": "hf-hub:timm/vit"},
            {"architecture": "local-dir:/etc"},
            {"architecture": None},
            {"kwargs": {"checkpoint_path": "/etc/passwd"}},
            {"kwargs": {"depth": 10**9}},
            {"name": "../a"},
            {"name": "own:a"},
            {"upload": None},
            {"hub_id": "timm/x"},
            {"class_names": ["a\u0000b"]},
            {"preprocessing": {"mean": [1e999]}},
        ],
    )
    def test_of_bodies_that_say_nothing_sensible(
        self, client: TestClient, upload: Bring, changes: dict[str, Any]
    ) -> None:
        content = json.dumps(body(upload(b"x")) | changes)
        answer = client.post("/v1/models", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, answer.text

    @pytest.mark.parametrize("name", ["own:none", "own:", "own:%00", "own:..%2f..", "sample:vit_digits"])
    def test_to_delete_what_is_nobodys(self, client: TestClient, name: str) -> None:
        assert client.delete(f"/v1/models/{name}").status_code == 404


class TestACommitWhoseAnswerIsLost:
    def test_leaves_the_model_its_blob(
        self, client: TestClient, upload: Bring, settings: Settings, database: Engine
    ) -> None:
        """The connection broke when all was done: nobody knows, so nothing may be undone."""

        making: list[Session] = []

        def note(session: Session, _: object) -> None:
            making.extend(session for each in session.new if isinstance(each, OwnModel))

        def lose(session: Session) -> None:
            if session in making:
                raise OperationalError("COMMIT", {}, ConnectionError("the server closed the connection"))

        event.listen(session_factory, "after_flush", note)
        event.listen(session_factory, "after_commit", lose)
        try:
            assert client.post("/v1/models", json=body(upload())).status_code == 503
        finally:
            event.remove(session_factory, "after_flush", note)
            event.remove(session_factory, "after_commit", lose)
        assert client.get("/v1/models/own:digits").json()["state"] == "checking"
        [kept] = (settings.data_dir / "blobs" / "models").rglob("*.safetensors")
        assert kept.read_bytes() == WEIGHTS
        with transaction(database, read_only=True) as session:
            assert session.scalars(select(Trash.prefix)).all() == []


class TestDeleting:
    def test_throws_the_blobs_and_ends_the_check(
        self, client: TestClient, upload: Bring, check: Callable[[], None], database: Engine
    ) -> None:
        client.post("/v1/models", json=body(upload())).raise_for_status()
        client.delete("/v1/models/own:digits").raise_for_status()
        check()
        assert client.get("/v1/models/own:digits").status_code == 404
        with transaction(database, read_only=True) as session:
            assert len(session.scalars(select(Trash.prefix).where(Trash.prefix.startswith("models/"))).all()) == 1
