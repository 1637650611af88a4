"""Three owners share two real workers on PostgreSQL and Redis: turns, limits, isolation and idempotency.

All submit at once. The jobs fail early, so that no model is computed: the workers lack the dataset that the server has.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, select

import processes
import services
from api.app import create_app
from serving import serving
from steps import Steps
from store import keys, owners, workers
from store.settings import Settings
from store.states import JobState
from store.tables import Job
from store.values import Limits, Scope

SECONDS = 120
BODY = {"model": "sample:vit_fmnist", "dataset": "local:shoes", "recipe": {"target_ratio": 0.5}}


@pytest.fixture
def settings(
    database: Engine, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    for split in ("calibration", "test"):
        folder = tmp_path / "datasets" / "shoes" / split / "boot"
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    environment = {
        "VITPRESS_DATA_DIR": str(tmp_path),
        "VITPRESS_DATABASE_URL": database_url,
        "VITPRESS_BROKER_URL": redis_url,
        "VITPRESS_DEVICE": "cpu",
        "VITPRESS_SWEEP_SECONDS": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings(datasets_dir=tmp_path / "datasets")


class Member:
    """An owner, and a client with its key."""

    def __init__(self, steps: Steps, url: str, name: str, **limits: int) -> None:
        owner_id = steps.do(owners.create, name, Limits(**limits)).owner_id
        _, key = steps.do(keys.create, owner_id, name="theirs", scopes=[Scope.SUBMIT])
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def submit(self, key: str | None = None) -> httpx.Response:
        return self.http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": key or str(uuid4())})

    def jobs(self) -> list[dict[str, Any]]:
        """Newest first."""
        return self.http.get("/v1/jobs", params={"limit": 200}).json()["items"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
class TestThreeOwnersWithTwoWorkers:
    def test_share_them_fairly_within_their_limits_and_apart(
        self, steps: Steps, settings: Settings, tmp_path: Path
    ) -> None:
        with (
            serving(create_app(settings)) as url,
            processes.worker({}, tmp_path / "first.log"),
            processes.worker({}, tmp_path / "second.log"),
            ThreadPoolExecutor(16) as pool,
            Member(steps, url, "sweeps") as sweeps,
            Member(steps, url, "single") as single,
            Member(steps, url, "limited", max_running=1, max_daily=4) as limited,
        ):
            services.wait_until(lambda: len(steps.do(workers.seen, timedelta(minutes=1))) == 2, SECONDS)

            # every submission twice at the same time, as by a client that lost the first answer
            sent = [(sweeps, str(uuid4())) for _ in range(10)]
            twins = [pool.submit(who.submit, key) for who, key in sent for _ in range(2)]
            once = [pool.submit(limited.submit) for _ in range(6)]
            answers = [each.result() for each in twins]
            assert {answer.status_code for answer in answers} == {202}
            assert all(
                one.json()["id"] == other.json()["id"] for one, other in zip(answers[::2], answers[1::2], strict=True)
            )
            refused = [each.result() for each in once if each.result().status_code != 202]
            assert [answer.json()["code"] for answer in refused] == ["daily_limit_reached"] * 2

            late = single.submit().json()
            members = (sweeps, single, limited)
            for member in members:
                self.stays_apart(member, [each for each in members if each is not member])
            services.wait_until(lambda: all(ended(job) for member in members for job in member.jobs()), SECONDS)

            of = {member: member.jobs() for member in members}
            assert [len(of[member]) for member in members] == [10, 1, 4]
            for job in (job for found in of.values() for job in found):
                assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", "unknown_dataset", 1)

            # whoever has nothing running is next, however many wait before
            others = [job for member in (sweeps, limited) for job in of[member]]
            [job] = of[single]
            assert job["id"] == late["id"]
            assert sum(late["created_at"] < each["started_at"] < job["started_at"] for each in others) <= 2
            assert sum(each["started_at"] > job["started_at"] for each in others) >= 5

            # one at a time
            turns = sorted((each["started_at"], each["finished_at"]) for each in of[limited])
            assert all(ends <= starts for (_, ends), (starts, _) in pairwise(turns))
            served = steps.do(lambda session: set(session.scalars(select(Job.worker))))
            assert len(served) == 2

    def stays_apart(self, member: Member, others: list[Member]) -> None:
        """It sees its own jobs everywhere, and those of the others nowhere."""
        own = {job["id"] for job in member.jobs()}
        queue = member.http.get("/v1/queue").json()
        assert {job["id"] for job in queue["jobs"]} <= own
        assert len(queue["others"]) <= len(others)
        running = {worker["running"] for worker in member.http.get("/v1/workers").json()["items"]}
        assert running <= own | {None}
        for other in others:
            foreign = other.jobs()[0]["id"]
            assert foreign not in own
            assert member.http.get(f"/v1/jobs/{foreign}").status_code == 404
            assert member.http.post(f"/v1/jobs/{foreign}/cancel").status_code == 404


def ended(job: Mapping[str, Any]) -> bool:
    return JobState(job["state"]).is_final
