"""Submissions: ``POST /v1/jobs`` with a key and an ``Idempotency-Key``, each in a transaction that is on disk before it
is answered. The bare handler takes the same body. After the last round PostgreSQL is crashed, and what it then has is
counted."""

import json
import signal
import time
from statistics import median

from sqlalchemy import text

from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground
from benchmarks.load.wrk import Request, load, once

GOAL = 300
BODY = {"model": "sample:vit_digits", "dataset": "sample:digits", "recipe": {"target_ratio": 0.5}}


def measure(ground: Ground) -> None:
    sizes = ground.sizes
    team = rows.team(ground.engine, "submits")
    headers = {**team.headers, "Content-Type": "application/json"}
    rounds = []
    with (
        servers.bare(ground.directory, ground.processes) as bare,
        servers.api(ground.directory, ground.processes, ground.environment) as api,
    ):
        accepted = 0
        for number in range(sizes.rounds + 1):  # the first one warms up
            request = Request(["/v1/jobs"], headers, "POST", json.dumps(BODY), 202, unique=f"{number}-{time.time_ns()}")
            if number == 0:
                for each in (bare, api):
                    once(each, request)
                accepted += len(api.ports)
            measured = [
                load(each, request, connections=sizes.connections, seconds=sizes.seconds, directory=ground.directory)
                for each in (bare, api)
            ]
            accepted += measured[1].answers
            rounds.append(measured)
            if number == 0:
                rows.settle(ground.engine)  # or the plans of all rounds would be those for an empty table
    ground.postgres.stop(signal.SIGQUIT)  # its immediate shutdown, which is a crash
    ground.postgres.start()
    with ground.engine.begin() as connection:
        count = text("SELECT count(*) FROM jobs WHERE owner_id = :owner")
        kept = connection.execute(count, {"owner": team.owner_id}).scalar_one()
    ground.tell("## Submissions", "", str(__doc__).strip())
    ground.table(
        ("round", "bare, a second", "errors", "submissions, a second", "errors", "ratio", "p99, ms"),
        *(
            (
                number, f"{handler.per_second:.0f}", handler.errors, f"{taken.per_second:.0f}", taken.errors,
                f"{taken.per_second / handler.per_second:.2f}", f"{taken.p99_ms:.0f}",
            )
            for number, (handler, taken) in enumerate(rounds[1:], 1)
        ),
    )  # fmt: skip
    ground.tell(
        f"Median: **{median(taken.per_second for _, taken in rounds[1:]):.0f}** a second (goal: {GOAL}). Accepted: "
        f"{accepted:,}; of those, lost in the crash: **{max(0, accepted - kept)}**.",
        "",
    )
