"""Files that go out without being seen, by each of the protocols that uvicorn may choose."""

import random
from pathlib import Path
from typing import BinaryIO

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.zero_copy import EXTENSION, ZeroCopy
from serving import serving

CONTENT = random.Random(3).randbytes(5_000_011)  # noqa: S311 - more than one step, and than a socket takes at once


class Files:
    """An application that has one file, and no other way to send it. ``announced`` may be a lie."""

    def __init__(self, file: BinaryIO, announced: int = len(CONTENT)) -> None:
        self.file, self.announced = file, announced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        assert EXTENSION in scope["extensions"]
        length = (b"content-length", str(self.announced).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        half = self.announced // 2
        for offset, count in ((0, half), (half, self.announced - half)):
            await send({"type": EXTENSION, "file": self.file, "offset": offset, "count": count})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@pytest.fixture(params=["h11", "httptools", "api.protocol:Impatient"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


class TestAFile:
    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_arrives_whole_and_the_connection_serves_the_next_request(
        self, path: Path, protocol: str, loop: str
    ) -> None:
        with (
            path.open("rb") as file,
            serving(ZeroCopy(Files(file)), http=protocol, loop=loop) as url,
            httpx.Client(base_url=url) as client,
        ):
            for _ in range(3):
                assert client.get("/").content == CONTENT

    def test_that_is_shorter_than_announced_breaks_the_connection_off(self, path: Path, protocol: str) -> None:
        with (
            path.open("rb") as file,
            serving(ZeroCopy(Files(file, len(CONTENT) + 1)), http=protocol) as url,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            httpx.get(url)

    def test_whose_reader_hangs_up_leaves_the_others_alone(self, path: Path, protocol: str) -> None:
        with path.open("rb") as file, serving(ZeroCopy(Files(file)), http=protocol) as url:
            with httpx.stream("GET", url) as answer:
                next(answer.iter_raw(1000))
            assert httpx.get(url).content == CONTENT


class TestAnotherServer:
    def test_is_offered_nothing(self) -> None:
        """Here: a TestClient."""
        from starlette.testclient import TestClient

        seen: list[Scope] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        TestClient(ZeroCopy(app)).get("/")
        assert EXTENSION not in seen[0].get("extensions", {})
