"""GET /v1/datasets."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.app import create_app
from serving import local_client
from store.settings import Settings


class TestListing:
    def test_has_what_the_operator_provides(self, client: TestClient) -> None:
        items = client.get("/v1/datasets").json()["items"]

        shoes = {"name": "local:shoes", "classes": ["boot", "sandal"], "splits": ["calibration", "evaluation"]}
        assert shoes in items

    def test_leaves_out_what_contradicts_itself(self, tmp_path: Path) -> None:
        for place in ("good/a", "good/b", "bad/train/a", "bad/val/b"):
            (tmp_path / "datasets" / place).mkdir(parents=True)
            (tmp_path / "datasets" / place / "1.png").touch()
        settings = Settings(
            data_dir=tmp_path / "data", datasets_dir=tmp_path / "datasets", samples_dir=tmp_path, auth="local"
        )

        with local_client(create_app(settings)) as client:
            items = client.get("/v1/datasets").json()["items"]

        assert [(dataset["name"], dataset["splits"]) for dataset in items if dataset["name"].startswith("local:")] == [
            ("local:good", ["all"])
        ]
