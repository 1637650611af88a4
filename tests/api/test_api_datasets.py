"""GET /v1/datasets."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.app import create_app
from serving import local_client
from store.settings import Settings


class TestListing:
    def test_has_what_the_operator_provides(self, client: TestClient) -> None:
        items = client.get("/v1/datasets").json()["items"]

        [shoes] = [each for each in items if each["name"] == "local:shoes"]
        assert (shoes["classes"], shoes["splits"]) == (["boot", "sandal"], ["calibration", "evaluation"])
        assert (shoes["state"], shoes["size"]) == ("ready", None)

    def test_leaves_out_what_contradicts_itself(self, settings: Settings, tmp_path: Path) -> None:
        for place in ("good/a", "good/b", "bad/train/a", "bad/val/b"):
            (tmp_path / "datasets" / place).mkdir(parents=True)
            (tmp_path / "datasets" / place / "1.png").touch()
        folders = {"datasets_dir": tmp_path / "datasets", "samples_dir": tmp_path}

        with local_client(create_app(settings.model_copy(update=folders))) as client:
            items = client.get("/v1/datasets").json()["items"]

        assert [(dataset["name"], dataset["splits"]) for dataset in items if dataset["name"].startswith("local:")] == [
            ("local:good", ["all"])
        ]
