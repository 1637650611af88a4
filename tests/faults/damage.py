"""An artifact of a finished job, what may become of its blob, and what a client sees of that."""

import hashlib
import random
import socket
from collections.abc import Callable
from contextlib import closing

import httpx
from house import SECONDS, House

import services
from hands import Worker
from store.settings import Settings

CONTENT = random.Random(11).randbytes(9_000_011)  # noqa: S311 - chunks of both stores, and no multiple of one
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "model.safetensors"
EARLY = {"Range": "bytes=7-1006"}  # of bytes that no test damages


def settings_of(house: House) -> Settings:
    """As far as the rows and blobs go."""
    shared = ("VITPRESS_DATA_DIR", "VITPRESS_DATABASE_URL", "VITPRESS_BLOB_URL", "VITPRESS_S3_")
    given = {name: value for name, value in house.environment.items() if name.startswith(shared)}
    return Settings.model_validate({name.removeprefix("VITPRESS_").lower(): value for name, value in given.items()})


class Artifact:
    """Of a finished job."""

    def __init__(self, house: House) -> None:
        worker = Worker(settings_of(house))
        self.job_id = worker.submit()
        worker.finish(worker.claim(), {NAME: CONTENT})
        self.path = f"/v1/jobs/{self.job_id}/artifacts/{NAME}"
        self.key = f"jobs/{self.job_id}/attempt-1/{NAME}"
        self.file = house.directory / "blobs" / self.key
        self.house = house

    def get(self, **headers: str) -> httpx.Response:
        return self.house.http.get(self.path, headers=headers)

    def is_refused_as(self, code: str) -> None:
        for answer in (self.get(), self.get(**EARLY), self.house.http.head(self.path)):
            assert answer.status_code == 410
            assert answer.headers["Content-Type"] == "application/problem+json"
        assert self.get().json()["code"] == code

    def put(self, content: bytes) -> None:
        """In the bucket, past the spoiler's eyes."""
        with closing(services.s3_client(self.house.environment["VITPRESS_S3_ENDPOINT"])) as s3:
            s3.put_object(Bucket=services.BUCKET, Key=f"far/{self.key}", Body=content)


def flipped(content: bytes) -> bytes:
    """One bit of it, far from the start."""
    at = len(content) - 77
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[:-1],
    "emptied": lambda content: b"",
    "with a byte more": lambda content: content + b"x",
    "with a bit flipped": flipped,
}


def pulled(house: House, path: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """The length that a download announces, and how many bytes come; ``meanwhile`` happens after the first ones."""
    with socket.create_connection(("127.0.0.1", house.port), SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{house.port}\r\n\r\n".encode())
        head, _, first = client.recv(1 << 16).partition(b"\r\n\r\n")
        [length] = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        meanwhile()
        received = len(first)
        while part := client.recv(1 << 20):
            received += len(part)
    return int(length), received
