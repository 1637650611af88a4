"""Pages of a list of very many jobs: the first, the middle and the last one, by filter; and the queue with very many
jobs that wait, of 50 owners. A hundred thousand newer jobs of others are between an owner and its own."""

import http.client
import time
from collections.abc import Mapping
from statistics import median
from urllib.parse import urlencode

from api.dependencies import encode_cursor
from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground

OWNERS = 50
TIMES = 15  # that each page is asked for
FILTERS: dict[str, list[tuple[str, str]]] = {
    "none": [],
    "state": [("state", "failed")],
    "two states": [("state", "failed"), ("state", "cancelled")],
    "state that no job has": [("state", "running")],
    "model": [("model", "model-3")],
    "model that no job has": [("model", "nothing")],
    "dataset": [("dataset", "dataset-2")],
    "model and state": [("model", "model-3"), ("state", "failed")],
}


def measure(ground: Ground) -> None:
    sizes = ground.sizes
    team = rows.team(ground.engine, "lists")
    ids = rows.add_ended(ground.engine, [team.owner_id], sizes.rows)
    teams = [rows.team(ground.engine, f"waits-{number}") for number in range(OWNERS)]
    waiting = rows.add_waiting(ground.engine, [each.owner_id for each in teams], sizes.waiting)
    places = {"first": None, "middle": ids[len(ids) // 2], "last": ids[min(51, len(ids) - 1)]}
    with servers.api(ground.directory, 1, ground.environment) as api:
        pages = {
            (name, place): _milliseconds(api, _list(filters, cursor), team.headers)
            for name, filters in FILTERS.items()
            for place, cursor in places.items()
        }
        of = {each.owner_id: each for each in teams}
        owners = rows.owners_of(ground.engine, [waiting[0], waiting[len(waiting) // 2], waiting[-1]])
        looks = {
            f"poll of a job that waits, {place}": _milliseconds(api, f"/v1/jobs/{each}", of[owners[each]].headers)
            for place, each in (("first", waiting[0]), ("middle", waiting[len(waiting) // 2]), ("last", waiting[-1]))
        }
        looks["`GET /v1/queue`"] = _milliseconds(api, "/v1/queue", teams[0].headers)
    ground.tell(f"## Lists: {sizes.rows:,} jobs of an owner", "", str(__doc__).strip())
    ground.table(
        ("filter", *(f"{place} page, ms" for place in places)),
        *((name, *(f"{pages[name, place]:.1f}" for place in places)) for name in FILTERS),
    )
    ground.table((f"{sizes.waiting:,} wait", "ms"), *((name, f"{took:.1f}") for name, took in looks.items()))


def _list(filters: list[tuple[str, str]], cursor: str | None) -> str:
    after = [] if cursor is None else [("cursor", encode_cursor(cursor))]
    return f"/v1/jobs?{urlencode([('limit', '50'), *filters, *after])}"


def _milliseconds(api: servers.Processes, path: str, headers: Mapping[str, str]) -> float:
    """The median. Raises where the answer is no 200."""
    connection = http.client.HTTPConnection("127.0.0.1", api.ports[0], timeout=60)
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        body = answer.read()
        took.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
    connection.close()
    return median(took)
