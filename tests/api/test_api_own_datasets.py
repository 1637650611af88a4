"""POST, GET, DELETE /v1/datasets: what owners bring."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select

from api.app import create_app
from archive_files import fashion, zip_of
from hands import MODEL, Worker
from serving import local_client
from store.blobs import Blobs
from store.errors import BlobStoreFullError
from store.owners import LOCAL
from store.session import transaction
from store.settings import Settings
from store.tables import Trash
from store.values import Scope
from team import Team
from worker import runner

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the queries are tested on both


@pytest.fixture
def upload(uploaded: Callable[..., str], tmp_path: Path) -> Callable[..., str]:
    """Of a small archive."""
    return partial(uploaded, zip_of(tmp_path / "archive", fashion()).read_bytes())


@pytest.fixture
def check(settings: Settings, worker: Worker) -> Callable[[], None]:
    """What a worker does about the dataset that waits."""
    return lambda: runner.run(worker.claim(), settings)


def stored(settings: Settings, prefix: str = "datasets") -> list[str]:
    folder = settings.data_dir / "blobs" / prefix
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


class TestAnUpload:
    def test_becomes_a_dataset_that_jobs_read_once_it_is_checked(
        self,
        client: TestClient,
        upload: Callable[..., str],
        check: Callable[[], None],
        settings: Settings,
        submission: Callable[..., dict[str, Any]],
    ) -> None:
        upload_id = upload()
        answer = client.post("/v1/datasets", json={"name": "fashion", "upload": upload_id})
        assert (answer.status_code, answer.headers["Location"]) == (202, "/v1/datasets/own:fashion")
        assert answer.json() == client.get("/v1/datasets").json()["items"][-1]
        assert (answer.json()["state"], answer.json()["classes"]) == ("checking", [])
        assert not (settings.upload_dir / upload_id).exists()
        job = submission(dataset="own:fashion")
        [error] = client.post("/v1/jobs", json=job).json()["errors"]
        assert (error["pointer"], error["code"]) == ("/dataset", "bad_dataset")

        check()
        shown = client.get("/v1/datasets/own:fashion").json()
        assert (shown["state"], shown["classes"]) == ("ready", ["bag", "dress", "sneaker"])
        assert shown["report"]["splits"] == {"calibration": 15, "evaluation": 9}
        assert [each["class_name"] for each in shown["thumbnails"]] == ["bag"] * 2 + ["dress"] * 2 + ["sneaker"] * 2
        picture = client.get(shown["thumbnails"][0]["url"])
        assert (picture.headers["Content-Type"], picture.content[8:12]) == ("image/webp", b"WEBP")
        assert client.post("/v1/jobs", json=job).status_code == 202

    def test_that_is_no_archive_is_rejected_with_the_reason(
        self, client: TestClient, upload: Callable[..., str], check: Callable[[], None], settings: Settings
    ) -> None:
        upload_id = upload()
        (settings.upload_dir / upload_id).write_bytes(b"\x80\x04}q.")
        client.post("/v1/datasets", json={"name": "pickle", "upload": upload_id}).raise_for_status()
        check()
        shown = client.get("/v1/datasets/own:pickle").json()
        assert (shown["state"], shown["error"]["code"], shown["report"]) == ("rejected", "bad_archive", None)

    @pytest.mark.parametrize(("missing", "code"), [(0, "upload_not_found"), (1, "upload_incomplete")])
    def test_that_is_not_there_whole_or_not_yours_is_refused(
        self, client: TestClient, upload: Callable[..., str], team: Team, settings: Settings, missing: int, code: str
    ) -> None:
        upload_id = upload(missing=missing, owner_id=LOCAL.owner_id if missing else team.place("anna").owner_id)
        answer = client.post("/v1/datasets", json={"name": "fashion", "upload": upload_id})
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["pointer"], error["code"]) == (422, "/upload", code)
        assert stored(settings) == []

    def test_is_used_once_and_a_name_once(
        self, client: TestClient, upload: Callable[..., str], settings: Settings, database: Engine
    ) -> None:
        upload_id, other = upload(), upload()
        client.post("/v1/datasets", json={"name": "fashion", "upload": upload_id}).raise_for_status()
        with transaction(database, read_only=True) as session:
            assert list(session.scalars(select(Trash.prefix))) == []
        again = client.post("/v1/datasets", json={"name": "more", "upload": upload_id})
        assert again.json()["errors"][0]["code"] == "upload_not_found"
        taken = client.post("/v1/datasets", json={"name": "fashion", "upload": other})
        assert (taken.status_code, taken.json()["code"]) == (409, "dataset_exists")
        assert len(stored(settings)) == 1
        assert (settings.upload_dir / other).exists()

    def test_sent_again_with_its_key_is_answered_alike(
        self, client: TestClient, upload: Callable[..., str], settings: Settings
    ) -> None:
        body, headers = {"name": "fashion", "upload": upload()}, {"Idempotency-Key": "once"}
        first, again = (client.post("/v1/datasets", json=body, headers=headers) for _ in range(2))
        assert (again.status_code, again.json()) == (first.status_code, first.json())
        assert again.headers["Location"] == first.headers["Location"]
        assert len(stored(settings)) == 1


class TestADirectory:
    @pytest.fixture
    def client(self, settings: Settings, tmp_path: Path) -> Any:
        """Of a server that allows ``disk``."""
        for name in ("boot", "sandal"):
            (tmp_path / "disk" / "shoes" / name).mkdir(parents=True)
        with local_client(create_app(settings.model_copy(update={"dataset_roots": (tmp_path / "disk",)}))) as client:
            yield client

    def test_under_a_root_is_brought_without_a_copy(
        self, client: TestClient, tmp_path: Path, settings: Settings
    ) -> None:
        directory = str(tmp_path / "disk" / "shoes")
        answer = client.post("/v1/datasets", json={"name": "shoes", "directory": directory})
        assert answer.status_code == 202
        assert (answer.json()["directory"], answer.json()["size"]) == (directory, None)
        assert stored(settings) == []

    @pytest.mark.parametrize("directory", ["/etc", "{tmp}/disk/../secret", "{tmp}/diskette"])
    def test_elsewhere_is_refused(self, client: TestClient, tmp_path: Path, directory: str) -> None:
        answer = client.post("/v1/datasets", json={"name": "a", "directory": directory.replace("{tmp}", str(tmp_path))})
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["pointer"], error["code"]) == (422, "/directory", "directory_not_allowed")


class TestRefusals:
    @pytest.mark.parametrize(
        "body",
        [
            {"name": "a"},
            {"name": "a", "upload": "x", "directory": "/x"},
            {"name": "../a", "upload": "x"},
            {"name": "own:a", "upload": "x"},
            {"name": "a", "directory": "relative"},
            {"name": "a", "directory": "/a\u0000"},
        ],
    )
    def test_of_bodies_that_say_nothing_sensible(self, client: TestClient, body: dict[str, str]) -> None:
        assert client.post("/v1/datasets", json=body).status_code == 422

    @pytest.mark.parametrize("name", ["own:none", "none", "local:none", "own:", "own:%00", "local:..%2fshoes"])
    def test_of_names_that_are_nobodys(self, client: TestClient, name: str) -> None:
        for method in ("GET", "DELETE"):
            answer = client.request(method, f"/v1/datasets/{name}")
            assert answer.status_code == 404

    def test_of_thumbnails_that_are_none(
        self, client: TestClient, upload: Callable[..., str], check: Callable[[], None]
    ) -> None:
        client.post("/v1/datasets", json={"name": "fashion", "upload": upload()}).raise_for_status()
        check()
        for name in ("99.webp", "..%2fdata", "data"):
            assert client.get(f"/v1/datasets/own:fashion/thumbnails/{name}").status_code == 404


class TestShowing:
    def test_a_dataset_of_the_servers(self, client: TestClient) -> None:
        shown = client.get("/v1/datasets/local:shoes").json()
        assert (shown["classes"], shown["state"], shown["report"]) == (["boot", "sandal"], "ready", None)


class TestDeleting:
    def test_throws_the_blobs(
        self,
        client: TestClient,
        upload: Callable[..., str],
        check: Callable[[], None],
        database: Engine,
        submission: Callable[..., dict[str, Any]],
    ) -> None:
        client.post("/v1/datasets", json={"name": "fashion", "upload": upload()}).raise_for_status()
        check()
        job = client.post("/v1/jobs", json=submission(dataset="own:fashion")).json()
        answer = client.delete("/v1/datasets/own:fashion")
        assert (answer.status_code, answer.json()["job_id"]) == (409, job["id"])
        client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        assert client.delete("/v1/datasets/own:fashion").json()["name"] == "own:fashion"
        assert client.get("/v1/datasets/own:fashion").status_code == 404
        with transaction(database, read_only=True) as session:
            assert any(prefix.startswith("datasets/") for prefix in session.scalars(select(Trash.prefix)))


class TestOthers:
    def test_see_and_use_nothing_of_it(self, team: Team, upload: Callable[..., str], check: Callable[[], None]) -> None:
        anna, bert = team.client("anna"), team.client("bert")
        body = {"name": "fashion", "upload": upload(owner_id=team.place("anna").owner_id)}
        anna.post("/v1/datasets", json=body).raise_for_status()
        check()
        url = anna.get("/v1/datasets/own:fashion").json()["thumbnails"][0]["url"]
        assert anna.get(url).status_code == 200
        assert bert.get(url).status_code == 404
        assert "own:fashion" not in bert.get("/v1/datasets").text
        job = {"model": MODEL, "dataset": "own:fashion", "recipe": {"target_ratio": 0.5}}
        assert bert.post("/v1/jobs", json=job).json()["errors"][0]["code"] == "unknown_dataset"
        assert anna.post("/v1/jobs", json=job).status_code == 202
        viewer = team.client("anna", Scope.READ)
        assert viewer.delete("/v1/datasets/own:fashion").status_code == 403


class TestABlobStoreThatIsFull:
    def test_leaves_the_upload_for_another_try(
        self,
        client: TestClient,
        upload: Callable[..., str],
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(*_: object) -> None:
            raise BlobStoreFullError("no space left")

        body = {"name": "fashion", "upload": upload()}
        with monkeypatch.context() as patched:
            patched.setattr(Blobs, "put_file", full)
            assert client.post("/v1/datasets", json=body).status_code == 507
        assert client.post("/v1/datasets", json=body).status_code == 202
