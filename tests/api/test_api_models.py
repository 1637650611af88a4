"""GET /v1/models."""

import pytest
from fastapi.testclient import TestClient

from core import catalog


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestListing:
    def test_turns_all_pages_without_a_gap(self, client: TestClient) -> None:
        names: list[str] = []
        query: dict[str, str] = {"limit": "97"}
        while True:
            page = client.get("/v1/models", params=query).json()
            names += [model["name"] for model in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]

        assert names == catalog.names()

    def test_begins_with_the_samples(self, client: TestClient) -> None:
        first = client.get("/v1/models?limit=4").json()["items"]

        assert [model["name"].partition(":")[0] for model in first[:3]] == ["sample"] * 3
        assert not first[3]["name"].startswith("sample:")
        assert first[2] == {
            "name": "sample:vit_fmnist",
            "architecture": catalog.get("sample:vit_fmnist").architecture,
            "parameters": 1_199_626,
            "macs": catalog.get("sample:vit_fmnist").macs,
            "input_size": [1, 28, 28],
            "num_classes": 10,
            "state": "ready",
            "error": None,
            "created_at": None,
            "size": None,
            "hub_id": None,
        }

    def test_searches_by_every_word(self, client: TestClient) -> None:
        page = client.get("/v1/models", params={"search": "SMALL augreg_in1k", "limit": 200}).json()

        assert page["items"]
        assert all("small" in model["name"] and "augreg_in1k" in model["name"] for model in page["items"])

    def test_of_nothing_found_is_empty(self, client: TestClient) -> None:
        assert client.get("/v1/models?search=resnet50").json() == {"items": [], "next_cursor": None}

    def test_refuses_a_cursor_of_another_search(self, client: TestClient) -> None:
        cursor = client.get("/v1/models?limit=1").json()["next_cursor"]

        answer = client.get("/v1/models", params={"search": "patch16", "cursor": cursor})

        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestShowing:
    def test_has_the_shapes_of_the_layers(self, client: TestClient) -> None:
        model = client.get("/v1/models/vit_small_patch16_224.augreg_in1k").json()

        assert model["shape"]["layers"][0]["path"] == "blocks.0.attn"
        assert model["shape"]["layers"][0]["heads"] == 6
        assert model["parameters"] == model["shape"]["parameters"]

    def test_takes_a_name_with_a_colon(self, client: TestClient) -> None:
        assert client.get("/v1/models/sample:vit_fmnist").json()["name"] == "sample:vit_fmnist"
        assert client.get("/v1/models/sample%3Avit_fmnist").json()["name"] == "sample:vit_fmnist"

    def test_of_an_unknown_name_names_near_ones(self, client: TestClient) -> None:
        answer = client.get("/v1/models/vit_smal_patch16_224")

        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
        assert "vit_small_patch16_224" in answer.json()["near"]
