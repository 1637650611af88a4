"""The team's page: whose jobs wait and run, what the workers do, and who stores how much."""

import re

import pytest

from hands import Worker
from steps import WORKER
from store import workers
from store.session import engine, transaction
from store.settings import Settings
from store.states import Queue
from store.values import Fitness, Scope
from team import Team

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def rows(page: str, region: str) -> list[list[str]]:
    """The text of the body's cells in the table of that name."""
    found = re.search(f'aria-label="{region}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    assert found is not None, page
    return [
        [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    ]


class TestQueue:
    def test_has_each_owner_with_what_runs_and_waits(self, settings: Settings, team: Team) -> None:
        for owner, count in (("anna", 3), ("ben", 2)):
            hands = Worker(settings, team.place(owner))
            for _ in range(count):
                hands.submit()
        hands.claim()

        page = team.browser("root", Scope.ADMIN).get("/team").text

        assert [row[:4] for row in rows(page, "Queue by owner, table")] == [
            ["anna", "1", "–", "2"],
            ["ben", "0", "–", "2"],
        ]

    def test_names_the_others_to_administrators_alone(self, settings: Settings, team: Team) -> None:
        for owner in ("anna", "ben"):
            Worker(settings, team.place(owner)).submit()

        page = team.browser("anna").get("/team").text

        assert sorted(row[0] for row in rows(page, "Queue by owner, table")) == ["anna (you)", "somebody else"]
        assert "ben" not in page

    def test_has_the_own_jobs_by_position_with_what_they_wait_for(self, settings: Settings, team: Team) -> None:
        anna = Worker(settings, team.place("anna"))
        first, second = anna.submit(), anna.submit()

        page = team.browser("anna").get("/team").text

        jobs = rows(page, "Your jobs in the queue")
        assert [(row[2], row[3]) for row in jobs] == [("1", "a worker of its queue"), ("2", "a worker of its queue")]
        assert page.index(first) < page.index(second)

    def test_has_no_job_of_others(self, settings: Settings, team: Team) -> None:
        theirs = Worker(settings, team.place("ben")).submit()

        assert theirs not in team.browser("anna").get("/team").text


class TestWorkers:
    def sign_on(self, settings: Settings, name: str) -> None:
        with transaction(engine(settings)) as session:
            workers.sign_on(session, name, [Queue.CPU], Fitness(frozenset({"big"}), 64 * 10**9), "a device")
            workers.beat(session, name, memory_used_bytes=16 * 10**9)

    def test_are_there_with_device_memory_and_what_they_do(self, settings: Settings, team: Team) -> None:
        self.sign_on(settings, "shed:17")

        page = team.browser("anna").get("/team").text

        for fact in ("shed:17", "a device", "16 GB of 64 GB", "idle", "big", "nothing"):
            assert fact in page

    def test_of_none_the_page_says_so(self, team: Team) -> None:
        assert "No worker has been heard of" in team.browser("anna").get("/team").text

    @pytest.mark.parametrize(("whose", "shown"), [("anna", True), ("ben", False)])
    def test_lead_to_the_job_if_it_is_the_visitors(
        self, settings: Settings, team: Team, whose: str, shown: bool
    ) -> None:
        self.sign_on(settings, WORKER)
        hands = Worker(settings, team.place(whose))
        job_id = hands.submit()
        hands.claim()

        page = team.browser("anna").get("/team").text

        assert (f"/jobs/{job_id}" in page) is shown
        assert ("somebody else's job" in page) is not shown


class TestStorage:
    def test_is_the_own_and_of_every_owner_to_administrators(self, settings: Settings, team: Team) -> None:
        hands = Worker(settings, team.place("anna"))
        hands.submit()
        hands.finish(hands.claim(), files={"model.safetensors": b"x" * 7000})

        mine = team.browser("anna").get("/team").text
        all_of_them = team.browser("root", Scope.ADMIN).get("/team").text

        assert "Artifacts</dt><dd>7 kB" in mine
        assert "Storage by owner" not in mine
        assert ["anna", "7 kB", "–", ""] in rows(all_of_them, "Storage by owner")
