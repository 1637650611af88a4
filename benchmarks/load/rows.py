"""Rows to put the load on. The database makes them itself: a million jobs in a minute."""

import json
from dataclasses import dataclass

from sqlalchemy import Engine, create_engine, select, text

from core.recipe import FisherRecipe
from core.report import Constraint
from store import keys, owners
from store.session import transaction
from store.tables import Job
from store.values import Scope

MODELS = 7  # by name; a job has one of them, and one of five datasets
DATASETS = 5
STATES = "CASE WHEN i % 101 = 0 THEN 'cancelled' WHEN i % 37 = 0 THEN 'failed' ELSE 'succeeded' END"
APART_MS = 1000  # between two submissions
FIRST_MS = 1_700_000_000_000  # of the oldest job

# The ids are UUIDs of version 7, which grow with the time that their first 12 digits are.
_INSERT = """
INSERT INTO jobs (
    id, owner_id, project_id, kind, labels, revision, model, dataset, recipe, state, queue, priority, stage_fraction,
    attempt, max_attempts, created_at, started_at, finished_at, achieved, stage_seconds,
    lease_token, lease_expires_at
)
SELECT
    substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7000-8000-' || lpad(to_hex(i), 12, '0'), owner_id, project_id,
    'compress', '{{"team": "vision"}}', 0, 'model-' || i % {models}, 'dataset-' || i % {datasets}, :recipe,
    {state}, 'cpu', {priority}, 0, {attempt}, 3, at, {started}, {finished}, {achieved}, {stages},
    {lease}, {expires}
FROM (
    SELECT i, lpad(to_hex({first} + i * {apart}), 12, '0') AS h,
           to_timestamp(({first} + i * {apart}) / 1000.0) AS at, p.owner_id, p.id AS project_id
    FROM generate_series(CAST(:since AS bigint), CAST(:since AS bigint) + :count - 1) AS i
    JOIN (SELECT *, row_number() OVER (ORDER BY owner_id) - 1 AS number FROM projects WHERE owner_id = ANY(:owners)) p
      ON p.number = i % :owner_count
) AS made
"""


@dataclass(frozen=True)
class Team:
    """An owner, and a key of its."""

    owner_id: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def team(engine: Engine, name: str) -> Team:
    with transaction(engine) as session:
        place = owners.create(session, name)
        _, key = keys.create(session, place.owner_id, name="load", scopes=[Scope.SUBMIT])
    return Team(place.owner_id, key)


def add_ended(engine: Engine, owner_ids: list[str], count: int) -> list[str]:
    """Jobs that have ended, of these owners in turn. Their ids, the oldest first; all that were there are older."""
    return _add(
        engine, owner_ids, count, state=STATES, priority="0", attempt="1", started="at + interval '40 seconds'",
        finished="at + interval '90 seconds'", achieved=":achieved", stages=":stages", lease="NULL", expires="NULL",
        more={"achieved": _achieved(), "stages": '{"load": 2.0, "compress": 40.0, "evaluate": 8.0}'},
    )  # fmt: skip


def add_running(engine: Engine, owner_id: str, count: int) -> list[str]:
    """Jobs whose leases last: no worker has them."""
    return _add(
        engine, [owner_id], count, state="'running'", priority="0", attempt="1", started="at", finished="NULL",
        achieved="NULL", stages="NULL", more={}, lease="'00000000-0000-7000-8000-000000000000'",
        expires="now() + interval '1 day'",
    )  # fmt: skip


def add_waiting(engine: Engine, owner_ids: list[str], count: int) -> list[str]:
    nothing = dict.fromkeys(("started", "finished", "achieved", "stages", "lease", "expires"), "NULL")
    return _add(engine, owner_ids, count, more={}, state="'queued'", priority="i % 3", attempt="0", **nothing)


def end_all(engine: Engine) -> None:
    """No job waits or runs any more."""
    with _patient(engine).begin() as connection:
        connection.execute(
            text(
                "UPDATE jobs SET state = 'cancelled', lease_token = NULL, lease_expires_at = NULL, finished_at = now() "
                "WHERE state IN ('queued', 'running', 'cancelling')"
            )
        )


def settle(engine: Engine) -> None:
    """What the database does about new rows within a minute or so, at once: so that it happens in no measurement."""
    patient = _patient(engine)
    with patient.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
    patient.dispose()


def owners_of(engine: Engine, job_ids: list[str]) -> dict[str, str]:
    with transaction(engine, read_only=True) as session:
        rows = session.execute(select(Job.id, Job.owner_id).where(Job.id.in_(job_ids)))
        return {row.id: row.owner_id for row in rows}


def _add(engine: Engine, owner_ids: list[str], count: int, *, more: dict[str, str], **columns: str) -> list[str]:
    recipe = json.dumps(FisherRecipe(target_ratio=0.5).model_dump(mode="json"))
    sql = _INSERT.format(models=MODELS, datasets=DATASETS, first=FIRST_MS, apart=APART_MS, **columns)
    patient = _patient(engine)
    with patient.begin() as connection:
        since = connection.execute(text("SELECT count(*) FROM jobs")).scalar_one()
        values = {"since": since, "count": count, "owners": owner_ids, "owner_count": len(owner_ids), "recipe": recipe}
        connection.execute(text(sql), values | more)
    patient.dispose()
    settle(engine)
    return _ids(since, count)


def _patient(engine: Engine) -> Engine:
    """The service's own gives no statement as long as a million rows take."""
    return create_engine(engine.url)


def _achieved() -> str:
    return Constraint(requested=0.5, achieved=0.5, met=True).model_dump_json()


def _ids(since: int, count: int) -> list[str]:
    return [
        f"{at[:8]}-{at[8:]}-7000-8000-{i:012x}"
        for i in range(since, since + count)
        for at in (f"{FIRST_MS + i * APART_MS:012x}",)
    ]
