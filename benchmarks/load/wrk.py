"""wrk, which puts as much load on servers as they bear. Each process has its own, with its share of the connections."""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.servers import Processes

_SCRIPT = """
local threads = {}
replies, others = 0, 0
local paths, at = {PATHS}, 0
local headers = {HEADERS}
function setup(thread) table.insert(threads, thread) end
function request()
  at = at + 1
  if "{UNIQUE}" ~= "" then headers["Idempotency-Key"] = "{UNIQUE}-" .. at end
  return wrk.format("{METHOD}", paths[at % #paths + 1], headers, {BODY})
end
function response(status) if status == {STATUS} then replies = replies + 1 else others = others + 1 end end
function done(summary, latency, requests)
  local right, wrong = 0, 0
  for _, thread in ipairs(threads) do
    right, wrong = right + thread:get("replies"), wrong + thread:get("others")
  end
  local e = summary.errors
  io.write(string.format('{"right": %d, "wrong": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f}\\n', right,
    wrong + e.connect + e.read + e.write + e.timeout, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Request:
    """What is sent again and again; of several ``paths``, one after the other. ``status`` is the only right answer.
    ``unique``: every one has its own ``Idempotency-Key``, which begins so."""

    paths: Sequence[str]
    headers: Mapping[str, str]
    method: str = "GET"
    body: str | None = None
    status: int = 200
    unique: str = ""


@dataclass(frozen=True)
class Load:
    """``errors``: answers with another status, and what was no answer."""

    answers: int
    errors: int
    per_second: float
    p50_ms: float
    p99_ms: float


def load(processes: Processes, request: Request, *, connections: int, seconds: float, directory: Path) -> Load:
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("the load benchmark needs wrk")
    each = max(1, connections // len(processes.ports))
    running = []
    for number, port in enumerate(processes.ports):
        script = directory / f"{number}.lua"
        script.write_text(_script(request, number))
        options = ["-t1", f"-c{each}", f"-d{seconds:g}s", "--timeout", "30s", "-s", str(script)]
        command = [program, *options, f"http://127.0.0.1:{port}/"]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))  # noqa: S603
    told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    return Load(
        answers=sum(each["right"] for each in told),
        errors=sum(each["wrong"] for each in told),
        per_second=sum(each["right"] / each["seconds"] for each in told),
        p50_ms=max(each["p50_ms"] for each in told),
        p99_ms=max(each["p99_ms"] for each in told),
    )


def once(processes: Processes, request: Request) -> None:
    """Asks each process for itself, so that what is loaded at a first request is loaded. Raises where the answer is
    another."""
    for number, port in enumerate(processes.ports):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        key = {"Idempotency-Key": f"{request.unique}-once-{number}"} if request.unique else {}
        connection.request(request.method, request.paths[0], request.body, {**request.headers, **key})
        answer = connection.getresponse()
        if answer.status != request.status:
            raise RuntimeError(f"{request.paths[0]}: {answer.status} {answer.read()[:200]!r}")
        connection.close()


def _script(request: Request, number: int) -> str:
    filled = _SCRIPT
    for name, value in {
        "PATHS": _table(json.dumps(path) for path in request.paths),
        "HEADERS": _table(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items()),
        "METHOD": request.method,
        "BODY": "nil" if request.body is None else f"[[{request.body}]]",
        "STATUS": str(request.status),
        "UNIQUE": request.unique and f"{request.unique}-{number}",
    }.items():
        filled = filled.replace(f"{{{name}}}", value)
    return filled


def _table(items: Iterable[str]) -> str:
    return f"{{{', '.join(items)}}}"
