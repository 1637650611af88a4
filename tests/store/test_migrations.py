"""The migrations build what the tables say, on both databases."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import IntegrityError

import services
from migrations.upgrade import check, downgrade, upgrade
from store.session import engine as open_engine
from store.settings import Settings
from store.tables import Base


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = open_engine(Settings(data_dir=tmp_path))
        yield engine
        engine.dispose()
        return
    with services.new_database(request.getfixturevalue("postgres_server")) as url:
        engine = open_engine(Settings(database_url=url))
        yield engine
        engine.dispose()


class TestMigrations:
    def test_they_build_what_the_tables_say(self, empty: Engine) -> None:
        upgrade(empty)
        check(empty)
        assert set(Base.metadata.tables) < set(inspect(empty).get_table_names())

    def test_they_go_all_the_way_back_and_forth(self, empty: Engine) -> None:
        upgrade(empty)
        downgrade(empty, "base")
        assert inspect(empty).get_table_names() == ["alembic_version"]
        upgrade(empty)
        check(empty)

    def test_two_processes_may_start_at_once(self, empty: Engine) -> None:
        environment = os.environ | {"VITPRESS_DATABASE_URL": empty.url.render_as_string(hide_password=False)}
        processes = [subprocess.Popen([sys.executable, "-m", "migrations"], env=environment) for _ in range(2)]
        assert [process.wait() for process in processes] == [0, 0]
        check(empty)

    @pytest.mark.parametrize("empty", ["postgresql"], indirect=True)  # SQLite names no key of an autoincrement table
    def test_every_constraint_has_a_name(self, empty: Engine) -> None:
        upgrade(empty)
        found = inspect(empty)
        for table in Base.metadata.tables:
            assert found.get_pk_constraint(table)["name"] == f"pk_{table}"
            named = [*found.get_foreign_keys(table), *found.get_check_constraints(table)]
            assert all(constraint["name"] for constraint in named)


class TestTheStepToTeams:
    def test_gives_the_jobs_that_are_there_to_the_local_owner(self, empty: Engine) -> None:
        upgrade(empty, "0002")
        with empty.begin() as connection:
            connection.execute(text(JOB))
            connection.execute(text(EVENT))
        upgrade(empty)
        with empty.begin() as connection:
            query = (
                "SELECT owners.name, projects.name, kind FROM jobs JOIN owners ON jobs.owner_id = owners.id "
                "JOIN projects ON project_id = projects.id"
            )
            assert connection.execute(text(query)).all() == [("local", "default", "compress")]
            assert connection.scalar(text("SELECT count(*) FROM events")) == 1
        downgrade(empty, "0002")
        with empty.begin() as connection:
            assert connection.scalar(text("SELECT count(*) FROM jobs")) == 1


class TestTheStepToFinetuning:
    def test_keeps_every_row_there_and_back(self, empty: Engine) -> None:
        upgrade(empty, "0001")
        with empty.begin() as connection:
            connection.execute(text(JOB))
            connection.execute(text(EVENT))
            connection.execute(text(ARTIFACT))
        upgrade(empty)
        with empty.begin() as connection:
            connection.execute(text("UPDATE jobs SET stage = 'finetune', stage_loss = 0.25"))
            connection.execute(text("UPDATE events SET stage = 'finetune', loss = 0.25"))
        downgrade(empty, "0001")
        with empty.begin() as connection:
            for table in ("jobs", "events"):
                assert list(connection.scalars(text(f"SELECT stage FROM {table}"))) == ["compress"]  # noqa: S608
            assert list(connection.scalars(text("SELECT name FROM artifacts"))) == ["plan.json"]

    def test_still_refuses_a_stage_that_there_is_not(self, empty: Engine) -> None:
        upgrade(empty, "0002")
        with empty.begin() as connection:
            connection.execute(text(JOB))
        for statement in ("UPDATE jobs SET stage = 'lunch'", EVENT.replace("'compress'", "'lunch'")):
            with pytest.raises(IntegrityError), empty.begin() as connection:
                connection.execute(text(statement))

    def test_leaves_foreign_keys_enforced(self, empty: Engine) -> None:
        upgrade(empty)
        with pytest.raises(IntegrityError), empty.begin() as connection:
            connection.execute(text(ARTIFACT))


JOB = """
    INSERT INTO jobs (id, labels, model, dataset, recipe, state, queue, priority, stage, stage_fraction, attempt,
        max_attempts, lease_token, created_at)
    VALUES ('a', '{}', 'm', 'd', '{}', 'running', 'cpu', 0, 'compress', 0.5, 1, 3, 'token', '2025-01-02 03:04:05')
"""
EVENT = """
    INSERT INTO events (job_id, kind, at, state, stage, fraction, attempt)
    VALUES ('a', 'stage', '2025-01-02 03:04:05', 'running', 'compress', 0.5, 1)
"""
ARTIFACT = """
    INSERT INTO artifacts (job_id, name, size, sha256, media_type, blob_key) VALUES ('a', 'plan.json', 2, 'b', 'c', 'd')
"""
