"""POST /v1/plans."""

import pytest
from fastapi.testclient import TestClient

from core import catalog
from vitpress.plan import Plan

VIT_S = "vit_small_patch16_224.augreg_in1k"


@pytest.fixture
def shapeless(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model in the catalogue that has no layer which can be compressed."""
    data = catalog._data()
    totals = {"parameters": 1009, "macs": 2003, "left_dense": {"blocks.0.attn": "no adapter knows a OtherAttention"}}
    monkeypatch.setitem(data["shapes"], "none", {"totals": totals, "groups": []})
    monkeypatch.setitem(data["models"], "vit_none", data["models"][VIT_S] | {"shape": "none"})
    return "vit_none"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestPreview:
    def test_says_what_a_budget_gives(self, client: TestClient) -> None:
        answer = client.post("/v1/plans", json={"model": VIT_S, "recipe": {"method": "fisher", "target_ratio": 0.5}})

        assert answer.status_code == 200
        plan = Plan.model_validate(answer.json()["plan"])
        assert answer.json()["ratio"] == pytest.approx(plan.ratio)
        assert plan.ratio == pytest.approx(0.5, abs=0.01)
        assert plan.parameters_before == 22_050_664
        assert plan.macs_after < plan.macs_before

    def test_resolves_the_recipe_with_every_default(self, client: TestClient) -> None:
        recipe = client.post("/v1/plans", json={"model": VIT_S, "recipe": {"target_ratio": 0.5}}).json()["recipe"]

        assert (recipe["method"], recipe["version"], recipe["seed"]) == ("fisher", 1, 0)
        assert recipe["rank_budget"] is None

    def test_honours_the_budgets(self, client: TestClient) -> None:
        recipe = {"target_ratio": 0.3, "rank_budget": 0}

        layers = client.post("/v1/plans", json={"model": VIT_S, "recipe": recipe}).json()["plan"]["layers"]

        assert {layer["kind"] for layer in layers} == {"dense", "feed_forward"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestRefusal:
    def test_of_an_unreachable_target_says_what_is_reachable(self, client: TestClient) -> None:
        recipe = {"target_ratio": 0.6, "prune_budget": 0}

        answer = client.post("/v1/plans", json={"model": VIT_S, "recipe": recipe})

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"], fault["code"]) == (
            422,
            "/recipe/target_ratio",
            "unreachable_target",
        )
        assert 0 < fault["reachable"] < fault["requested"] == 0.6
        again = recipe | {"target_ratio": fault["reachable"] - 1e-3}
        assert client.post("/v1/plans", json={"model": VIT_S, "recipe": again}).status_code == 200

    @pytest.mark.parametrize("path", ["/v1/plans", "/v1/jobs"])
    def test_of_a_model_with_nothing_to_compress_points_at_it(
        self, client: TestClient, shapeless: str, path: str
    ) -> None:
        body = {"model": shapeless, "recipe": {"target_ratio": 0.5}}

        answer = client.post(path, json=body | ({"dataset": "local:shoes"} if path == "/v1/jobs" else {}))

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"], fault["code"]) == (422, "/model", "nothing_to_compress")

    def test_of_an_unknown_model_names_near_ones(self, client: TestClient) -> None:
        answer = client.post("/v1/plans", json={"model": "vit_smal_patch16_224", "recipe": {"target_ratio": 0.5}})

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"], fault["code"]) == (422, "/model", "unknown_model")
        assert "vit_small_patch16_224" in fault["near"]

    def test_of_a_dataset_which_a_plan_has_none_of(self, client: TestClient) -> None:
        body = {"model": VIT_S, "recipe": {"target_ratio": 0.5}, "dataset": "local:shoes"}

        [fault] = client.post("/v1/plans", json=body).json()["errors"]

        assert (fault["pointer"], fault["code"]) == ("/dataset", "extra_forbidden")
