"""A running service, the people who use it, and what they can do without a browser."""

from typing import Any, Self

import httpx
import psutil

import processes
import services
from examples import SMALL_JOB
from samples.running import Running
from store.states import JobState
from store.values import Scope

SECONDS = 180  # for whatever is waited for, on a busy machine
LONG = {"recipe": SMALL_JOB["recipe"] | {"finetune": {"seconds": 3600}}}  # of a job that is cancelled


class Person:
    """Somebody with a key."""

    def __init__(self, url: str, name: str, key: str) -> None:
        self.name, self.key = name, key
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False)

    def submit(self, **changes: Any) -> str:
        """The id of an accepted job."""
        answer = self.http.post("/v1/jobs", json=SMALL_JOB | changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(path, params=query)
        assert answer.is_success, answer.text
        return answer.json()

    def wait(self, job_id: str) -> None:
        """Until the job has succeeded."""
        services.wait_until(lambda: JobState(self.get(f"/v1/jobs/{job_id}")["state"]).is_final, SECONDS)
        job = self.get(f"/v1/jobs/{job_id}")
        assert job["state"] == "succeeded", job


class Service:
    """``admin`` has the key that the service printed at its first start."""

    def __init__(self, running: Running, first_key: str) -> None:
        self.running, self.url = running, running.url
        self.admin = Person(self.url, "admin", first_key)
        self._people: dict[tuple[str, Scope], Person] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for person in (self.admin, *self._people.values()):
            person.http.close()

    def person(self, name: str, scope: Scope = Scope.SUBMIT) -> Person:
        """Made when first asked for."""
        if (name, scope) not in self._people:
            made = self.admin.http.post("/v1/owners", json={"name": name})
            assert made.status_code in {201, 409}, made.text
            key = self.admin.http.post("/v1/keys", json={"name": "theirs", "scopes": [scope], "owner": name})
            assert key.status_code == 201, key.text
            self._people[name, scope] = Person(self.url, name, key.json()["key"])
        return self._people[name, scope]

    def answers(self) -> bool:
        try:
            return self.admin.http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def kill_api(self) -> None:
        """At once; ``vitpress up`` starts another one."""
        below = processes.descendants(self.running.pid)
        [api] = [each for each in below if "api.serve:app" in processes.command_of(each)]
        api.kill()
        psutil.wait_procs([api])
