"""Polls: ``GET /v1/jobs/{id}`` with a key, of jobs that have ended, that run and that wait, a third each."""

from statistics import median

from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground
from benchmarks.load.steady import steady
from benchmarks.load.wrk import Request, load, once

JOBS = 200  # of each kind: as many as are watched at a time
GOAL_RATIO, GOAL_P99_MS = 0.6, 50


def measure(ground: Ground) -> None:
    sizes = ground.sizes
    team = rows.team(ground.engine, "polls")
    ids = [*rows.add_ended(ground.engine, [team.owner_id], JOBS), *rows.add_running(ground.engine, team.owner_id, JOBS)]
    ids += rows.add_waiting(ground.engine, [team.owner_id], JOBS)
    mixed = [ids[index % 3 * JOBS + index // 3] for index in range(3 * JOBS)]
    request = Request([f"/v1/jobs/{each}" for each in mixed], team.headers)
    with (
        servers.bare(ground.directory, ground.processes) as bare,
        servers.api(ground.directory, ground.processes, ground.environment) as api,
    ):
        for each in (bare, api):  # what is loaded at the first request is loaded
            once(each, request)
            load(each, request, connections=8, seconds=2, directory=ground.directory)
        rounds = [
            [
                load(each, request, connections=sizes.connections, seconds=sizes.seconds, directory=ground.directory)
                for each in (bare, api)
            ]
            for _ in range(sizes.rounds)
        ]
        most = median(polls.per_second for _, polls in rounds)
        half = steady(api.ports, request.paths, request.headers, per_second=most / 2, seconds=sizes.seconds)
    ratio = median(polls.per_second / handler.per_second for handler, polls in rounds)
    ground.tell("## Polls", "", str(__doc__).strip())
    ground.table(
        ("round", "bare, a second", "errors", "polls, a second", "errors", "ratio", "p99, ms"),
        *(
            (
                number, f"{handler.per_second:.0f}", handler.errors, f"{polls.per_second:.0f}", polls.errors,
                f"{polls.per_second / handler.per_second:.2f}", f"{polls.p99_ms:.0f}",
            )
            for number, (handler, polls) in enumerate(rounds, 1)
        ),
    )  # fmt: skip
    ground.tell(
        f"Median ratio: **{ratio:.2f}** (goal: {GOAL_RATIO}). At half of that load, {half.per_second:.0f} a second at "
        f"a steady rate: p50 {half.p50_ms:.1f} ms, p99 **{half.p99_ms:.1f} ms** (goal: {GOAL_P99_MS} ms), "
        f"{half.errors} errors.",
        "",
    )
