"""What comes together is one transaction, and to everybody as if it had come alone."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.orm import Session

from api.acceptance import Accepted, Outcome, Submission, accept
from api.joining import Done, Joined, Wish
from api.schemas import JobRequest
from store import owners
from store.errors import DailyLimitError, IdempotencyKeyReusedError, ProjectNotFoundError
from store.idempotency import Answer
from store.jobs import NewJob
from store.session import transaction
from store.tables import Job, Project
from store.values import Identity, JobView, Limits, Place, Scope

BODY = {"model": "sample:vit_digits", "dataset": "sample:digits", "recipe": {"target_ratio": 0.5}}


def at_once(joined: Joined[Wish, Done], wishes: Sequence[Wish]) -> list[Done | BaseException]:
    """What becomes of each, or what it raises."""

    async def asked() -> list[Done | BaseException]:
        found = await asyncio.gather(*map(joined.ask, wishes), return_exceptions=True)
        await joined.close()
        return found

    return asyncio.run(asked())


class Commits:
    """Of one engine."""

    def __init__(self, database: Engine) -> None:
        self.count = 0
        event.listen(database, "commit", self._note)

    def _note(self, _: object) -> None:
        self.count += 1


class Projects:
    """Makes projects of the local owner: ``odd`` ones are found wrong, ``awful`` ones break the transaction."""

    def __init__(self, database: Engine) -> None:
        self.told: list[Collection[str]] = []
        self.joined = Joined(database, self._make, self.told.append)

    def _make(self, session: Session, names: Sequence[str]) -> Mapping[str, str | Exception]:
        done: dict[str, str | Exception] = {}
        for name in names:
            if name.startswith("alone") and len(names) > 1:
                continue
            if name.startswith("odd"):
                done[name] = ValueError(name)
                continue
            owners.create_project(session, owners.LOCAL.owner_id, name)
            if name.startswith("awful"):
                raise ZeroDivisionError
            done[name] = name.upper()
        return done

    def ask(self, *names: str) -> list[str | BaseException]:
        return at_once(self.joined, names)


def names(database: Engine) -> set[str]:
    with transaction(database, read_only=True) as session:
        return set(session.scalars(select(Project.name))) - {owners.DEFAULT_PROJECT}


class TestJoined:
    def test_is_one_commit_which_is_told_of_before_the_answers(self, database: Engine) -> None:
        commits, projects = Commits(database), Projects(database)
        assert projects.ask("a", "b", "c") == ["A", "B", "C"]
        assert commits.count == 1
        assert [sorted(each) for each in projects.told] == [["A", "B", "C"]]
        assert names(database) == {"a", "b", "c"}

    def test_leaves_nothing_of_what_is_found_wrong_to_the_others(self, database: Engine) -> None:
        projects = Projects(database)
        a, odd, c = projects.ask("a", "odd", "c")
        assert (a, c) == ("A", "C")
        assert isinstance(odd, ValueError)
        assert [sorted(each) for each in projects.told] == [["A", "C"]]
        assert names(database) == {"a", "c"}

    def test_does_alone_what_is_left_out(self, database: Engine) -> None:
        commits, projects = Commits(database), Projects(database)
        assert projects.ask("a", "alone-1", "alone-2", "b") == ["A", "ALONE-1", "ALONE-2", "B"]
        assert commits.count == 3
        assert names(database) == {"a", "b", "alone-1", "alone-2"}

    def test_does_all_alone_where_one_breaks_the_transaction(self, database: Engine) -> None:
        projects = Projects(database)
        a, awful, c = projects.ask("a", "awful", "c")
        assert (a, c) == ("A", "C")
        assert isinstance(awful, ZeroDivisionError)
        assert names(database) == {"a", "c"}

    def test_has_more_wishes_than_a_transaction_takes(self, database: Engine) -> None:
        commits, projects = Commits(database), Projects(database)
        assert projects.ask(*(f"p{number}" for number in range(100))) == [f"P{number}" for number in range(100)]
        assert commits.count == 2


class Desk:
    """Where submissions of several owners come in at once. ``told``: what was accepted, a list a transaction."""

    def __init__(self, database: Engine) -> None:
        self.told: list[list[Outcome]] = []
        self._joined: Joined[Submission, Outcome] = Joined(database, accept, lambda each: self.told.append(list(each)))

    def take(self, *submissions: Submission) -> list[Outcome | BaseException]:
        return at_once(self._joined, submissions)


def submission(
    owner_id: str, *, key: str | None = None, fingerprint: str = "f", project: str = "default"
) -> Submission:
    body = JobRequest.model_validate(BODY | {"project": project})

    def new(_: Session, place: Place) -> NewJob:
        return NewJob(place=place, model=body.model, dataset=body.dataset, recipe=body.recipe)

    def answered(view: JobView) -> Answer:
        return Answer(202, {"etag": '"0"'}, f'"{view.id} is {view.position}"')

    asking = Identity(owner_id=owner_id, owner="somebody", scopes=frozenset(Scope), key_id=None)
    return Submission(body, asking, None if key is None else (owner_id, key, fingerprint), new, answered)


@pytest.fixture
def limited(database: Engine) -> str:
    """The id of an owner who may submit one job a day."""
    with transaction(database) as session:
        return owners.create(session, "limited", Limits(max_daily=1)).owner_id


@pytest.fixture
def free(database: Engine) -> str:
    with transaction(database) as session:
        return owners.create(session, "free").owner_id


@pytest.fixture
def desk(database: Engine) -> Desk:
    return Desk(database)


def jobs_of(database: Engine, owner_id: str) -> int:
    with database.connect() as connection:
        return connection.execute(select(func.count()).select_from(Job).where(Job.owner_id == owner_id)).scalar_one()


class TestAcceptance:
    def test_of_many_is_one_transaction_in_which_each_has_its_place(
        self, desk: Desk, database: Engine, free: str
    ) -> None:
        outcomes = desk.take(*(submission(free, key=f"k{number}") for number in range(5)))
        accepted = [each for each in outcomes if isinstance(each, Accepted)]
        assert [each.answer.body for each in accepted] == [
            f'"{each.job_id} is {place}"' for place, each in enumerate(accepted, 1)
        ]
        assert desk.told == [outcomes]
        assert jobs_of(database, free) == 5

    def test_of_twins_makes_one_job_and_answers_both_alike(self, desk: Desk, database: Engine, free: str) -> None:
        first, other, twin = desk.take(*(submission(free, key=key) for key in ("k", "l", "k")))
        assert isinstance(first, Accepted)
        assert isinstance(other, Accepted)
        assert twin == first.answer
        assert jobs_of(database, free) == 2

    def test_knows_a_key_of_before_among_new_ones(self, desk: Desk, database: Engine, free: str) -> None:
        [before] = desk.take(submission(free, key="k"))
        new, again, misused = Desk(database).take(
            submission(free, key="m"), submission(free, key="k"), submission(free, key="k", fingerprint="another")
        )
        assert isinstance(before, Accepted)
        assert isinstance(new, Accepted)
        assert again == before.answer
        assert isinstance(misused, IdempotencyKeyReusedError)
        assert jobs_of(database, free) == 2

    def test_holds_limits_and_names_projects_that_are_not_there_and_takes_the_others(
        self, desk: Desk, database: Engine, free: str, limited: str
    ) -> None:
        outcomes = desk.take(
            submission(free), submission(limited), submission(free, project="nowhere"), submission(limited),
            submission(free),
        )  # fmt: skip
        assert [type(each) for each in outcomes] == [
            Accepted, Accepted, ProjectNotFoundError, DailyLimitError, Accepted
        ]  # fmt: skip
        assert (jobs_of(database, free), jobs_of(database, limited)) == (2, 1)

    def test_of_what_a_database_takes_from_nobody_is_an_error_to_each(
        self, desk: Desk, database: Engine, free: str
    ) -> None:
        with database.begin() as connection:
            connection.execute(text("ALTER TABLE events RENAME TO elsewhere"))
        try:
            outcomes = desk.take(submission(free), submission(free))
        finally:
            with database.begin() as connection:
                connection.execute(text("ALTER TABLE elsewhere RENAME TO events"))
        assert all(isinstance(each, Exception) for each in outcomes)
        assert not any(desk.told)
        assert jobs_of(database, free) == 0
