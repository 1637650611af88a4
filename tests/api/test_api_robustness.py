"""Whatever a client sends, the fault is never the server's."""

import json
from typing import Any

from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hands import DATASET, MODEL

JSON = {"Content-Type": "application/json"}
TEXT = st.text(st.characters(), max_size=12) | st.sampled_from(["\0", "\ud800", "fisher", MODEL, DATASET, "é" * 300])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([2**63, 10**400, 0.5])
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
RECIPE = st.fixed_dictionaries(
    {"target_ratio": st.floats(0, 1) | SCALARS},
    optional={
        "method": st.sampled_from(["fisher", "svd-magnitude", "vtp", "losparse"]) | ANYTHING,
        "rank_budget": st.floats(0, 1) | ANYTHING,
        "prune_budget": st.floats(0, 1) | ANYTHING,
        "calibration_images": ANYTHING,
        "seed": ANYTHING,
        "version": ANYTHING,
        "refit": ANYTHING,
    },
)
SUBMISSION = st.fixed_dictionaries(
    {"model": st.just(MODEL) | TEXT, "recipe": RECIPE | ANYTHING},
    optional={
        "dataset": st.just(DATASET) | TEXT,
        "name": ANYTHING,
        "labels": st.dictionaries(TEXT, TEXT, max_size=3) | ANYTHING,
        "timeout_seconds": ANYTHING,
    },
)
BODY = SUBMISSION | ANYTHING

few = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],  # one server hears all examples
)


class TestBody:
    @few
    @given(body=BODY)
    def test_of_a_job_is_accepted_or_refused(self, client: TestClient, body: Any) -> None:
        _accepts_or_refuses(client, "/v1/jobs", body, 202)

    @few
    @given(body=BODY)
    def test_of_a_plan_is_accepted_or_refused(self, client: TestClient, body: Any) -> None:
        _accepts_or_refuses(client, "/v1/plans", body, 200)


def _accepts_or_refuses(client: TestClient, path: str, body: Any, accepted: int) -> None:
    answer = client.post(path, content=json.dumps(body), headers=JSON)

    assert answer.status_code in {accepted, 400, 422}, answer.text
    if answer.status_code != accepted:
        assert answer.headers["Content-Type"] == "application/problem+json"
    if answer.status_code == 422:
        assert all({"code", "message"} <= set(fault) for fault in answer.json()["errors"])
        assert answer.json()["errors"]
