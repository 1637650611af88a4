"""Requests at a steady rate, whatever becomes of those before: a server that falls behind cannot slow its clients down.

How long an answer took is counted from when its request was due, so that one which had to wait for a connection has
waited for the server.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles

import uvloop

CONNECTIONS = 64  # to each port


@dataclass(frozen=True)
class Steady:
    per_second: float
    errors: int
    p50_ms: float
    p99_ms: float


def steady(
    ports: Sequence[int], paths: Sequence[str], headers: Mapping[str, str], *, per_second: float, seconds: float
) -> Steady:
    return uvloop.run(_steady(ports, paths, headers, per_second, seconds))  # a client takes its share of the machine


async def _steady(
    ports: Sequence[int], paths: Sequence[str], headers: Mapping[str, str], per_second: float, seconds: float
) -> Steady:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "127.0.0.1", **headers}.items())
    # In turn, so that none idles for as long as a server keeps it open.
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for port in ports:
        for _ in range(CONNECTIONS):
            idle.put_nowait(await asyncio.open_connection("127.0.0.1", port))
    took: list[float] = []
    errors = 0

    async def ask(path: str, due: float) -> None:
        nonlocal errors
        reader, writer = await idle.get()
        try:
            writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
            if await _status(reader) != 200:
                errors += 1
        except (OSError, EOFError):
            errors += 1
            return
        took.append(time.monotonic() - due)
        idle.put_nowait((reader, writer))

    began = time.monotonic()
    asked: set[asyncio.Task[None]] = set()
    for number in range(int(per_second * seconds)):
        due = began + number / per_second
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(ask(paths[number % len(paths)], due))
        asked.add(task)
        task.add_done_callback(asked.discard)
    if asked:
        await asyncio.wait(asked)
    lasted = time.monotonic() - began
    while not idle.empty():
        idle.get_nowait()[1].close()
    cuts = quantiles(took, n=100)
    return Steady(len(took) / lasted, errors, cuts[49] * 1000, cuts[98] * 1000)


async def _status(reader: asyncio.StreamReader) -> int:
    """Of an answer, all of which is read."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *fields = head.split("\r\n")
    length = next(int(field.split(":")[1]) for field in fields if field.lower().startswith("content-length:"))
    await reader.readexactly(length)
    return int(first.split()[1])
