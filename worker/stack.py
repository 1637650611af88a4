"""``vitpress up``: the whole service on one machine, as child processes of this one, with nothing to install beside it.

The database is migrated; then run a broker (unless ``VITPRESS_BROKER_URL`` names one), one worker with its sweeper, and
the API. A child that dies is started again. However this process ends, its children end too.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import httpx
import typer

from migrations.upgrade import upgrade
from store import keys, workers
from store.session import engine, transaction
from store.settings import Settings
from worker.children import Child

READY_SECONDS = 90  # the first start of a fresh installation compiles its byte code
STOP_SECONDS = 12  # a worker's runner has 5 to end in, and the worker needs a moment before and after
RESTARTS, RESTART_WINDOW_SECONDS = 5, 60
SERVING = ("--factory", "--http", "api.protocol:Impatient")


def up(
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port the API listens on; 0 takes a free one.")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="Where the database, blobs and logs are kept.")] = None,
    with_keys: Annotated[
        bool, typer.Option("--keys", help="Serve others too, by API keys; prints the first one.")
    ] = False,
) -> None:
    """Run the whole service here, until Ctrl-C."""
    settings = _settings(data_dir, auth="keys" if with_keys else "local")
    if settings.auth == "local" and not _is_loopback(host):
        _give_up(f"without keys, nobody else may reach the service: --keys, or --host 127.0.0.1 in place of {host}")
    port = _port(host, port)
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104
    children = _children(settings, host, port)
    with _stopping_on_signals() as stopping:
        try:
            upgrade(engine(settings))
            if settings.auth == "keys":
                _say(*_first_key(settings))
            for child in children:
                child.start()
            if _is_ready(children, settings, url, stopping):
                _say(f"API     {url}", f"docs    {url}/docs", f"data    {settings.data_dir}", _who(settings))
                _say("Ctrl-C stops everything")
                _keep_alive(children, stopping)
        finally:
            for child in reversed(children):
                child.stop(STOP_SECONDS)
            engine(settings).dispose()
            _say("stopped")


def _settings(data_dir: Path | None, auth: Literal["keys", "local"]) -> Settings:
    return Settings(auth=auth) if data_dir is None else Settings(data_dir=data_dir, auth=auth)


def _first_key(settings: Settings) -> list[str]:
    """Said before anything can go wrong: nobody can read it again."""
    with transaction(engine(settings)) as session:
        key = keys.first_admin(session)
    if key is None:
        return []
    return [f"key     {key}", "        the first admin key, shown this once; `vitpress admin-key` makes another"]


def _who(settings: Settings) -> str:
    if settings.auth == "keys":
        return "serves  whoever has a key"
    return "serves  this machine alone, without keys; with --keys it serves others"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _children(settings: Settings, host: str, port: int) -> list[Child]:
    """In the order of starting; stopping goes backwards."""
    broker_port = None if settings.broker_url else _port("127.0.0.1", 0)
    environment = os.environ | {
        "VITPRESS_DATA_DIR": str(settings.data_dir),
        "VITPRESS_AUTH": settings.auth,
        "VITPRESS_BROKER_URL": settings.broker_url or f"redis://127.0.0.1:{broker_port}/0",
    }

    def child(name: str, *arguments: str) -> Child:
        return Child(name, [sys.executable, "-m", *arguments], settings.data_dir / "logs" / f"{name}.log", environment)

    broker = (
        [child("broker", "worker.broker", str(broker_port), str(settings.data_dir / "broker"))] if broker_port else []
    )
    return [
        *broker,
        child("worker", "celery", "--quiet", "-A", "worker.app", "worker"),
        child("api", "uvicorn", "api.serve:app", *SERVING, "--host", host, "--port", str(port)),
    ]


def _is_ready(children: Sequence[Child], settings: Settings, url: str, stopping: threading.Event) -> bool:
    """Wait for the API to say that it is ready, and for the worker to sign on. False: told to stop meanwhile.

    Ends the program if a child dies first, or the time is up.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not stopping.wait(0.1):
        for child in children:
            if child.status is not None:
                _give_up(f"{child.name} ended with status {child.status}: see {child.log}")
        if _answers(f"{url}/readyz") and _has_signed_on(children, settings):
            return True
        if time.monotonic() > deadline:
            _give_up(f"not ready after {READY_SECONDS} s: see {settings.data_dir / 'logs'}")
    return False


def _answers(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=5, trust_env=False).is_success
    return False


def _has_signed_on(children: Sequence[Child], settings: Settings) -> bool:
    worker = next(child for child in children if child.name == "worker")
    with transaction(engine(settings), read_only=True) as session:
        names = workers.seen(session, timedelta(seconds=READY_SECONDS))
    return worker.process is not None and f"{socket.gethostname()}:{worker.process.pid}" in names


def _keep_alive(children: Sequence[Child], stopping: threading.Event) -> None:
    restarts: deque[float] = deque(maxlen=RESTARTS)
    while not stopping.wait(0.2):
        for child in children:
            if child.status is None:
                continue
            if len(restarts) == RESTARTS and time.monotonic() - restarts[0] < RESTART_WINDOW_SECONDS:
                _give_up(f"{child.name} ended with status {child.status}, once too often: see {child.log}")
            _say(f"{child.name} ended with status {child.status}, starting it again: see {child.log}")
            restarts.append(time.monotonic())
            child.stop(STOP_SECONDS)  # what it left behind
            child.start()


def _port(host: str, port: int) -> int:
    """``port``, or a free one for 0. Ends the program if it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            _give_up(f"cannot listen on {host}:{port}: {error.strerror}")
        return int(probe.getsockname()[1])


@contextmanager
def _stopping_on_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set. They interrupt nothing, so that the stopping itself cannot be cut short."""
    stopping = threading.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def stop(_number: int, _frame: object) -> None:
        # From a thread: the main one may hold the event's lock, in whose wait() it was interrupted.
        threading.Thread(target=stopping.set).start()

    for number in previous:
        signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)


def _give_up(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)
