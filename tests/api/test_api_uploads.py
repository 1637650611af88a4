"""/v1/uploads: the tus protocol, by hand and by a client that is not ours."""

import base64
import fcntl
import hashlib
import http.client
import os
import socket
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, update
from tusclient.client import TusClient

from services import wait_until
from store.session import now, transaction
from store.settings import Settings
from store.tables import Upload
from store.values import Scope
from team import Team

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the queries are tested on both

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
CONTENT = bytes(range(251)) * 11


def begun(client: TestClient, length: int = len(CONTENT), more: dict[str, str] | None = None) -> str:
    answer = client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(length), **(more or {})})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])


def append(client: TestClient, url: str, offset: int, content: bytes, **headers: str) -> Response:
    return client.patch(url, headers={**BYTES, "Upload-Offset": str(offset), **headers}, content=content)


def offset(client: TestClient, url: str) -> int:
    answer = client.head(url, headers=TUS)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    return int(answer.headers["Upload-Offset"])


def file_of(settings: Settings, url: str) -> Path:
    return settings.upload_dir / url.rpartition("/")[2]


class TestProtocol:
    def test_is_described(self, client: TestClient, settings: Settings) -> None:
        answer = client.options("/v1/uploads")
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration,termination,checksum"
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha256,sha1"
        assert answer.headers["Tus-Max-Size"] == str(settings.max_upload_bytes)

    def test_takes_a_file_in_pieces(self, client: TestClient, settings: Settings) -> None:
        name = base64.b64encode("schön.safetensors".encode()).decode()
        url = begun(client, more={"Upload-Metadata": f"filename {name},empty"})
        first = append(client, url, 0, CONTENT[:1000])
        assert (first.status_code, first.headers["Upload-Offset"], first.headers["Tus-Resumable"]) == (
            204, "1000", "1.0.0",
        )  # fmt: skip
        assert "GMT" in first.headers["Upload-Expires"]
        assert offset(client, url) == 1000
        assert append(client, url, 1000, CONTENT[1000:]).headers["Upload-Offset"] == str(len(CONTENT))
        assert file_of(settings, url).read_bytes() == CONTENT
        shown = client.get(url)
        assert shown.headers["Upload-Metadata"] == f"filename {name},empty"
        assert shown.json()["metadata"] == {"filename": "schön.safetensors", "empty": ""}

    def test_takes_the_first_bytes_with_the_creation(self, client: TestClient, settings: Settings) -> None:
        headers = {**BYTES, "Upload-Length": str(len(CONTENT))}
        answer = client.post("/v1/uploads", headers=headers, content=CONTENT[:77])
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "77")
        assert answer.json()["offset"] == 77

    def test_takes_more_than_other_bodies_may_have(self, client: TestClient, settings: Settings) -> None:
        content = os.urandom(3 << 20)
        url = begun(client, len(content))
        assert append(client, url, 0, content).status_code == 204
        assert file_of(settings, url).read_bytes() == content
        assert (
            client.post("/v1/models", content=content, headers={"Content-Type": BYTES["Content-Type"]}).status_code
            == 413
        )

    def test_deletes(self, client: TestClient, settings: Settings) -> None:
        url = begun(client)
        append(client, url, 0, CONTENT[:9])
        assert client.delete(url, headers=TUS).status_code == 204
        assert not file_of(settings, url).exists()
        assert client.head(url, headers=TUS).status_code == 404
        assert append(client, url, 9, CONTENT[9:]).json()["code"] == "upload_not_found"
        assert not file_of(settings, url).exists()

    def test_once_with_an_idempotency_key(self, client: TestClient) -> None:
        key = {"Idempotency-Key": "7"}
        assert begun(client, more=key) == begun(client, more=key)


class TestRefusing:
    @pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
    def test_another_version(self, client: TestClient, method: str) -> None:
        url = begun(client) if method != "POST" else "/v1/uploads"
        headers = {"Tus-Resumable": "0.2.2", "Upload-Length": "7", "Upload-Offset": "0"}
        answer = client.request(method, url, headers=headers)
        assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")

    def test_another_offset(self, client: TestClient) -> None:
        url = begun(client)
        append(client, url, 0, CONTENT[:1000])
        answer = append(client, url, 999, CONTENT[999:])
        assert (answer.status_code, answer.json()["code"], answer.json()["offset"]) == (409, "upload_offset", 1000)

    def test_another_media_type(self, client: TestClient) -> None:
        answer = append(client, begun(client), 0, b"{}", **{"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (415, "upload_media_type")

    @pytest.mark.parametrize("chunked", [False, True])
    def test_more_than_was_announced(self, client: TestClient, chunked: bool) -> None:
        url = begun(client, 1009)
        content = iter([CONTENT[:1000], CONTENT[1000:1010]]) if chunked else CONTENT[:1010]
        answer = client.patch(url, headers={**BYTES, "Upload-Offset": "0"}, content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_overlong")
        assert offset(client, url) == 0

    def test_more_than_the_server_takes(self, client: TestClient, settings: Settings) -> None:
        headers = {**TUS, "Upload-Length": str(settings.max_upload_bytes + 1)}
        answer = client.post("/v1/uploads", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")

    @pytest.mark.parametrize("length", ["-1", "9" * 30, "x", ""])
    def test_a_length_that_is_none(self, client: TestClient, length: str) -> None:
        assert client.post("/v1/uploads", headers={**TUS, "Upload-Length": length}).status_code == 422

    @pytest.mark.parametrize("metadata", ["filename é", "a b c", "filename ====", "a YQ==,a YQ==", "\x01 YQ=="])
    def test_metadata_that_is_malformed(self, client: TestClient, metadata: str) -> None:
        headers = [
            (b"Tus-Resumable", b"1.0.0"),
            (b"Upload-Length", b"7"),
            (b"Upload-Metadata", metadata.encode("latin-1")),
        ]
        answer = client.post("/v1/uploads", headers=headers)
        assert answer.status_code == 422, answer.text

    @pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "..", "%00", "x.info", ".locks"])
    def test_names_that_are_no_ids(self, client: TestClient, settings: Settings, name: str) -> None:
        for answer in (append(client, f"/v1/uploads/{name}", 0, b"x"), client.get(f"/v1/uploads/{name}")):
            assert answer.status_code in {404, 405}
        assert not settings.upload_dir.exists()

    def test_what_exceeds_the_quota(self, team: Team, database: Engine) -> None:
        anna = team.client("anna", Scope.ADMIN)
        limits = {"max_running": None, "max_daily": None, "max_bytes": 1000}
        anna.patch("/v1/owners/anna", json=limits, headers={"If-Match": "*"}).raise_for_status()
        answer = anna.post("/v1/uploads", headers={**TUS, "Upload-Length": "1001"})
        assert (answer.status_code, answer.json()["code"]) == (413, "storage_quota_exceeded")

    def test_somebody_else_s(self, team: Team, settings: Settings) -> None:
        url = begun(team.client("anna"))
        assert append(team.client("bert"), url, 0, CONTENT).status_code == 404
        assert append(team.with_key(None), url, 0, CONTENT).status_code == 401
        assert file_of(settings, url).read_bytes() == b""


class TestChecksums:
    @pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
    def test_decide_whether_a_body_counts(self, client: TestClient, settings: Settings, algorithm: str) -> None:
        url = begun(client)
        digest = base64.b64encode(hashlib.new(algorithm, CONTENT[:1000]).digest()).decode()
        header = {"Upload-Checksum": f"{algorithm} {digest}"}
        damaged = append(client, url, 0, b"?" + CONTENT[1:1000], **header)
        assert (damaged.status_code, damaged.json()["code"]) == (460, "checksum_mismatch")
        assert offset(client, url) == 0
        assert append(client, url, 0, CONTENT[:1000], **header).status_code == 204
        assert append(client, url, 1000, CONTENT[1000:]).status_code == 204
        assert file_of(settings, url).read_bytes() == CONTENT

    @pytest.mark.parametrize("given", ["crc32 AAAA", "sha256 ?", "sha256"])
    def test_that_are_malformed_are_refused(self, client: TestClient, given: str) -> None:
        answer = append(client, begun(client), 0, b"x", **{"Upload-Checksum": given})
        assert answer.status_code in {422, 460}


class TestExpiry:
    def test_deletes_what_is_not_used(self, client: TestClient, database: Engine, settings: Settings) -> None:
        url = begun(client)
        append(client, url, 0, CONTENT[:9])
        stray = settings.upload_dir / "stray"
        stray.write_bytes(b"x")
        os.utime(stray, (0, 0))
        with transaction(database) as session:
            session.execute(update(Upload).values(expires_at=now(session) - timedelta(seconds=1)))
        assert client.head(url, headers=TUS).status_code == 404
        assert append(client, url, 9, CONTENT[9:]).status_code == 404
        begun(client)
        assert not file_of(settings, url).exists()
        assert not stray.exists()


def sent(server: str, url: str, offset: int, body: bytes, announced: int) -> socket.socket:
    """A PATCH that has sent ``body`` and not the rest."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc)
    connection.putrequest("PATCH", urlsplit(url).path)
    for name, value in {**BYTES, "Upload-Offset": str(offset), "Content-Length": str(announced)}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    assert connection.sock is not None
    return connection.sock


class TestBrokenConnections:
    """Under uvicorn, with ``tuspy``."""

    @pytest.fixture
    def source(self) -> BytesIO:
        return BytesIO(os.urandom(3 << 20))

    def test_a_stock_client_goes_on_where_it_was_cut_off(
        self, server: str, settings: Settings, source: BytesIO
    ) -> None:
        content, cut = source.getvalue(), (1 << 20) + 300_007
        tus = TusClient(f"{server}/v1/uploads")
        first = tus.uploader(file_stream=source, chunk_size=1 << 20)
        first.upload_chunk()
        url = str(first.url)
        sent(server, url, 1 << 20, content[1 << 20 : cut], announced=2 << 20).close()

        wait_until(lambda: tus.uploader(file_stream=source, url=url).get_offset() == cut, seconds=10)
        second = tus.uploader(file_stream=source, url=url, chunk_size=1 << 20, upload_checksum=True)
        assert second.offset == cut
        second.upload()
        assert file_of(settings, url).read_bytes() == content

    def test_one_that_only_looks_alive_makes_room(self, server: str, settings: Settings, source: BytesIO) -> None:
        content = source.getvalue()
        tus = TusClient(f"{server}/v1/uploads")
        uploader = tus.uploader(file_stream=source, chunk_size=1 << 20)
        uploader.set_url(uploader.create_url())
        url = str(uploader.url)
        stalled = sent(server, url, 0, content[:70_001], announced=len(content))
        wait_until(lambda: file_of(settings, url).exists() and self.is_locked(file_of(settings, url)), seconds=10)

        retrying = tus.uploader(file_stream=source, url=url, chunk_size=1 << 20, retries=1, retry_delay=0)
        retrying.upload()  # the first try learns that the stalled one had got further, the second goes on from there
        assert b" 423 " in stalled.recv(100)
        stalled.close()
        assert file_of(settings, url).read_bytes() == content

    def is_locked(self, path: Path) -> bool:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False
