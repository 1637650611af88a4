"""The SDK and the command line on a server with keys: who one is, and what a team shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live_server import DATASET, MODEL, LiveServer
from shell import Shell

from store import keys, owners
from store.session import transaction
from store.values import Scope
from vitpress import Client, credentials
from vitpress.errors import ConflictError, ForbiddenError, NotFoundError, UnauthorizedError


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server"), auth="keys") as running:
        yield running


@dataclass(frozen=True)
class Team:
    server: LiveServer
    admin: str
    member: str

    def client(self, key: str | None = None) -> Client:
        return Client(self.server.url, api_key=key or self.member)


@pytest.fixture
def team(running: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Team:
    """Whose files are nobody's else."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("VITPRESS_API_KEY", raising=False)
    monkeypatch.setenv("VITPRESS_URL", running.url)
    running.clear()
    with transaction(running.engine) as session:
        owner_id = owners.create(session, "vision").owner_id
        _, admin = keys.create(session, owner_id, name="root", scopes=[Scope.ADMIN])
        _, member = keys.create(session, owner_id, name="laptop", scopes=[Scope.SUBMIT])
    return Team(running, admin, member)


class TestKeys:
    def test_nobody_gets_in_without_one(self, team: Team) -> None:
        with Client(team.server.url) as client, pytest.raises(UnauthorizedError, match="API key"):
            client.get("0190b0f0-0000-7000-8000-000000000000")

    def test_a_login_is_kept_for_its_user_alone_until_the_logout(self, team: Team, shell: Shell) -> None:
        assert shell("login", stdin=team.member + "\n")[0] == 0
        assert credentials.path().stat().st_mode & 0o777 == 0o600
        code, out, _ = shell("whoami", "--json")
        assert (code, json.loads(out)["owner"]) == (0, "vision")
        assert shell("logout")[0] == 0
        code, _, err = shell("whoami")
        assert code == 2
        assert "key" in err

    def test_a_wrong_one_is_not_kept_and_not_shown(self, team: Team, shell: Shell) -> None:
        wrong = team.member[:-3] + "abc"
        code, out, err = shell("login", stdin=wrong)
        assert code == 2
        assert wrong not in out + err
        assert credentials.key(team.server.url) is None

    def test_are_made_replaced_and_revoked(self, team: Team) -> None:
        with team.client() as client:
            made = client.keys.create("ci", role="viewer")
            replaced = client.keys.rotate(made.id)
            assert client.keys.revoke(replaced.id).revoked_at is not None
            assert {key.name for key in client.keys.list()} == {"root", "laptop", "ci"}
        with team.client(made.key) as ended, pytest.raises(UnauthorizedError):
            ended.keys.whoami()

    def test_give_no_more_than_they_have(self, team: Team, shell: Shell) -> None:
        with team.client() as client, pytest.raises(ForbiddenError):
            client.keys.create("more", role="admin")


class TestOwners:
    def test_see_nothing_of_each_other(self, team: Team) -> None:
        with team.client(team.admin) as admin:
            admin.owners.create("audio", max_running=2)
            assert admin.owners.limit("audio", max_running=None, max_daily=7).limits.max_daily == 7
            key = admin.keys.create("theirs", owner="audio").key
            job = admin.compress(MODEL, dataset=DATASET, target_ratio=0.5)
        with team.client(key) as other:
            assert list(other.jobs()) == []
            for ask in (other.get, other.cancel, other.report, other.artifacts, other.delete):
                with pytest.raises(NotFoundError):
                    ask(job.id)


class TestJobs:
    def test_are_edited_cloned_retried_compared_and_deleted(self, team: Team) -> None:
        with team.client() as client:
            job = client.compress(MODEL, dataset=DATASET, target_ratio=0.5, name="first", priority=3)
            assert client.update(job.id, notes="the one", labels={"a": "b"}).notes == "the one"
            job.cancel()
            assert job.retry().job.state == "queued"
            other = job.clone(name="second")
            assert (other.job.name, other.job.recipe) == ("second", job.job.recipe)
            with pytest.raises(ConflictError):
                client.compare([job.id, other.id])
            for _ in range(2):
                team.server.succeed(team.server.claim())
            comparison = client.compare([job.id, other.id])
            assert {row.job_id for row in comparison.items} == {job.id, other.id}
            assert comparison.comparable
            client.delete(other.id)
            assert [each.id for each in client.jobs()] == [job.id]

    def test_are_submitted_all_or_none(self, team: Team, shell: Shell, tmp_path: Path) -> None:
        right = {"model": MODEL, "dataset": DATASET, "recipe": {"target_ratio": 0.5}}
        file = tmp_path / "jobs.json"
        file.write_text(json.dumps([right, right | {"model": "nothing"}]))
        shell("login", stdin=team.member)
        code, _, err = shell("batch", str(file))
        assert code == 2
        assert "/jobs/1/model" in err
        file.write_text(json.dumps([right, right]))
        code, out, _ = shell("batch", str(file), "--json")
        assert (code, len(json.loads(out))) == (0, 2)
        with team.client() as client:
            assert len(list(client.jobs())) == 2

    def test_take_what_a_method_knows(self, team: Team, shell: Shell) -> None:
        shell("login", stdin=team.member)
        arguments = ("submit", MODEL, DATASET, "--ratio", "0.5", "--method", "vtp", "--json")
        code, out, _ = shell(*arguments, "--set", "gate_penalty=0.002")
        assert (code, json.loads(out)["recipe"]["gate_penalty"]) == (0, 0.002)
        code, _, err = shell(*arguments, "--set", "no_such=1")
        assert code == 2
        assert "/recipe/no_such" in err


class TestWhatATeamShares:
    def test_the_queue_the_workers_the_projects_and_the_storage(self, team: Team, shell: Shell) -> None:
        shell("login", stdin=team.member)
        assert shell("projects", "create", "lenses")[0] == 0
        with team.client() as client:
            job = client.compress(MODEL, dataset=DATASET, target_ratio=0.5, project="lenses")
            assert [each.id for each in client.workers.queue().jobs] == [job.id]
            assert client.workers.list() == ()
            assert client.storage().used_bytes == 0
            assert job.job.project == "lenses"
        for command in ("queue", "workers", "storage"):
            code, out, _ = shell(command, "--json")
            assert code == 0
            json.loads(out)
            assert shell(command)[0] == 0

    def test_a_projects_events_tell_of_all_its_jobs(self, team: Team) -> None:
        with team.client() as client:
            stream = client.project_events(after="0-0")
            ids = {client.compress(MODEL, dataset=DATASET, target_ratio=0.5).id for _ in range(2)}
            assert {next(stream).job_id for _ in range(2)} == ids

    def test_webhooks(self, team: Team) -> None:
        with team.client() as client:
            made = client.webhooks.create("https://93.184.215.14/hook", events=["job.failed"])
            assert made.secret.startswith("whsec_")
            assert client.webhooks.update(made.id, enabled=False).disabled_at is not None
            assert client.webhooks.get(made.id).events == ("job.failed",)
            assert client.webhooks.rotate(made.id).secret != made.secret
            client.webhooks.delete(made.id)
            assert list(client.webhooks.list()) == []
