"""Downloads of an artifact, many at the same time, beside nginx with the same file. A client reads what comes, and
checks its length."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from sqlalchemy import text

from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground
from store.blobs import Blobs
from store.settings import Settings

GOAL_RATIO = 0.7
ROUNDS = 2
NAME = "model.safetensors"
PIECE = 1 << 18


def measure(ground: Ground) -> None:
    sizes = ground.sizes
    team = rows.team(ground.engine, "downloads")
    [job_id] = rows.add_ended(ground.engine, [team.owner_id], 1)
    files = ground.directory / "files"
    files.mkdir()
    _write(files / NAME, sizes.megabytes * 1_000_000)
    _store(ground, job_id, files / NAME)
    measured = []
    with (
        servers.nginx(ground.directory, files, ground.processes) as nginx,
        servers.api(ground.directory, ground.processes, ground.environment) as api,
    ):
        path = f"/v1/jobs/{job_id}/artifacts/{NAME}"
        fetch([nginx], f"/{NAME}", "", sizes.megabytes, 1)  # the file is in memory then
        fetch(api.ports, path, team.key, sizes.megabytes, 1)
        before = api.resident_bytes()
        with _Peak(api) as peak:
            for _ in range(min(ROUNDS, sizes.rounds)):
                plain = fetch([nginx], f"/{NAME}", "", sizes.megabytes, sizes.downloads)
                ours = fetch(api.ports, path, team.key, sizes.megabytes, sizes.downloads)
                measured.append((plain, ours))
    ratio = median(ours / plain for plain, ours in measured)
    ground.tell(f"## {sizes.downloads} downloads of {sizes.megabytes} MB", "", str(__doc__).strip())
    ground.table(
        ("round", "nginx, MB/s", "API, MB/s", "ratio"),
        *((n, f"{plain:.0f}", f"{ours:.0f}", f"{ours / plain:.2f}") for n, (plain, ours) in enumerate(measured, 1)),
    )
    ground.tell(
        f"Median ratio: **{ratio:.2f}** (goal: {GOAL_RATIO}). Memory of an API process: {before / 1e6:.0f} MB before, "
        f"{peak.bytes / 1e6:.0f} MB at most.",
        "",
    )


def fetch(ports: Sequence[int], path: str, key: str, megabytes: int, count: int) -> float:
    """MB/s of all together. Raises unless every download was whole. Each port has a process of clients."""
    shares = [count // len(ports) + (number < count % len(ports)) for number in range(len(ports))]
    command = [sys.executable, "-m", "benchmarks.load.downloads"]
    clients = [
        subprocess.Popen(  # noqa: S603
            [*command, str(port), path, str(megabytes * 1_000_000), str(share), key], stdout=subprocess.PIPE, text=True
        )
        for port, share in zip(ports, shares, strict=True)
        if share
    ]
    told = [client.communicate()[0] for client in clients]
    if any(client.returncode for client in clients):
        raise RuntimeError(f"downloads of {path} failed")
    times = [tuple(map(float, each.split())) for each in told]  # by one clock: that of the machine
    return megabytes * count / (max(end for _, end in times) - min(start for start, _ in times))


class _Peak:
    """The most memory that a process of the API has had."""

    def __init__(self, api: servers.Processes) -> None:
        self._api, self.bytes, self._over = api, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.bytes = max(self.bytes, self._api.resident_bytes())


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for start in range(0, size, 1_000_000):
            file.write(start.to_bytes(8, "little") * 125_000)


def _store(ground: Ground, job_id: str, path: Path) -> None:
    key = f"jobs/{job_id}/attempt-1/{NAME}"
    stored = Blobs.open(Settings(data_dir=Path(ground.environment["VITPRESS_DATA_DIR"]))).put_file(key, path)
    with ground.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO artifacts VALUES (:job_id, :name, :size, :sha256, 'application/octet-stream', :key)"),
            {"job_id": job_id, "name": NAME, "size": stored.size, "sha256": stored.sha256, "key": key},
        )


def _client(port: int, path: str, size: int, key: str, failed: list[str]) -> None:
    piece = bytearray(PIECE)
    with socket.create_connection(("127.0.0.1", port), timeout=300) as line:
        asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        line.sendall(f"{asked}Authorization: Bearer {key}\r\n\r\n".encode())
        head, read = b"", 0
        while b"\r\n\r\n" not in head and (got := line.recv(PIECE)):
            head += got
        head, _, start = head.partition(b"\r\n\r\n")
        read = len(start)
        while got_bytes := line.recv_into(piece):
            read += got_bytes
    if b" 200 " not in head.split(b"\r\n")[0] or read != size:
        failed.append(f"{head[:80]!r}: {read} of {size} bytes")


def main(port: str, path: str, size: str, count: str, key: str = "") -> int:
    failed: list[str] = []
    clients = [
        threading.Thread(target=_client, args=(int(port), path, int(size), key, failed)) for _ in range(int(count))
    ]
    began = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    print(began, time.monotonic())
    print(*failed, sep="\n", end="", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
