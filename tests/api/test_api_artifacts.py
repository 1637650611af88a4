"""GET /v1/jobs/{id}/artifacts and the download of one."""

import hashlib
import random
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

import services
from api.app import create_app
from hands import Worker
from serving import local_client
from store.blobs import Blobs
from store.settings import Settings
from vitpress import Client

WEIGHTS = random.Random(7).randbytes(3_000_017)  # noqa: S311 - several chunks, and no multiple of one
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()
ETAG = f'"{DIGEST}"'


@pytest.fixture
def job(worker: Worker) -> str:
    """The path of a finished job with two files and an empty one."""
    job_id = worker.submit()
    worker.finish(worker.claim(), {"model.safetensors": WEIGHTS, "plan.json": b"{}", "empty": b""})
    return f"/v1/jobs/{job_id}"


@pytest.fixture
def weights(job: str) -> str:
    return f"{job}/artifacts/model.safetensors"


class TestListing:
    def test_has_names_sizes_digests_and_urls_that_work(self, client: TestClient, job: str) -> None:
        items = client.get(f"{job}/artifacts").json()["items"]

        assert [item["name"] for item in items] == ["empty", "model.safetensors", "plan.json"]
        assert (items[1]["size"], items[1]["sha256"]) == (len(WEIGHTS), DIGEST)
        for item in items:
            assert hashlib.sha256(client.get(item["url"]).content).hexdigest() == item["sha256"]

    def test_is_empty_until_the_job_has_succeeded(self, client: TestClient, worker: Worker) -> None:
        assert client.get(f"/v1/jobs/{worker.submit()}/artifacts").json() == {"items": []}


class TestDownload:
    def test_is_the_file_with_its_length_and_digest(self, client: TestClient, weights: str) -> None:
        answer = client.get(weights)

        assert (answer.status_code, answer.content == WEIGHTS) == (200, True)
        assert answer.headers["Content-Length"] == str(len(WEIGHTS))
        assert answer.headers["ETag"] == ETAG
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="model.safetensors"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_of_an_empty_file_is_empty(self, client: TestClient, job: str) -> None:
        answer = client.get(f"{job}/artifacts/empty")

        assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")

    def test_arrives_in_pieces(self, server: str, weights: str) -> None:
        with httpx.stream("GET", server + weights) as answer:
            pieces = list(answer.iter_raw())

        assert len(pieces) > 1
        assert b"".join(pieces) == WEIGHTS

    def test_head_has_the_same_headers(self, server: str, weights: str) -> None:
        head, got = httpx.head(server + weights), httpx.get(server + weights)

        assert (head.status_code, head.content) == (200, b"")
        for name in ("Content-Length", "ETag", "Accept-Ranges", "Content-Type", "Content-Disposition"):
            assert head.headers[name] == got.headers[name]

    def test_head_knows_no_ranges(self, client: TestClient, weights: str) -> None:
        assert client.head(weights, headers={"Range": "bytes=0-0"}).headers["Content-Length"] == str(len(WEIGHTS))

    @pytest.mark.parametrize("name", ["other.bin", "%2e%2e%2fplan.json", "..%5cplan.json", "plan.json%00", "PLAN.JSON"])
    def test_of_any_other_name_is_not_found(self, client: TestClient, job: str, name: str) -> None:
        answer = client.get(f"{job}/artifacts/{name}")

        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")

    def test_takes_no_path_into_the_blobs(self, client: TestClient, job: str) -> None:
        key = f"{job.removeprefix('/v1/')}/attempt-1/model.safetensors"

        assert client.get(f"{job}/artifacts/{key}").status_code == 404
        assert client.get(f"{job}/artifacts/{key.replace('/', '%2F')}").status_code == 404

    def test_of_a_file_that_the_blob_store_lost_is_gone(
        self, client: TestClient, settings: Settings, job: str, weights: str
    ) -> None:
        Blobs.open(settings).delete_prefix(job.removeprefix("/v1/"))

        answer = client.get(weights)

        assert (answer.status_code, answer.json()["code"]) == (410, "blob_not_found")
        assert "attempt-1" not in answer.text


class TestRange:
    @pytest.mark.parametrize(
        ("header", "start", "end"),
        [
            ("bytes=0-0", 0, 1),
            ("bytes=1048570-2097160", 1_048_570, 2_097_161),
            ("bytes=3000000-", 3_000_000, len(WEIGHTS)),
            ("bytes=-17", len(WEIGHTS) - 17, len(WEIGHTS)),
            ("bytes=0-99999999", 0, len(WEIGHTS)),
        ],
    )
    def test_is_that_part_of_the_file(
        self, client: TestClient, weights: str, header: str, start: int, end: int
    ) -> None:
        answer = client.get(weights, headers={"Range": header})

        assert (answer.status_code, answer.content == WEIGHTS[start:end]) == (206, True)
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(WEIGHTS)}"
        assert answer.headers["Content-Length"] == str(end - start)
        assert answer.headers["ETag"] == ETAG

    def test_behind_the_end_is_a_problem_that_names_the_size(self, client: TestClient, weights: str) -> None:
        answer = client.get(weights, headers={"Range": f"bytes={len(WEIGHTS)}-"})

        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_resumes_a_download_of_the_same_version_alone(self, client: TestClient, weights: str) -> None:
        same = client.get(weights, headers={"Range": "bytes=7-12", "If-Range": ETAG})
        other = client.get(weights, headers={"Range": "bytes=7-12", "If-Range": '"other"'})

        assert (same.status_code, same.content) == (206, WEIGHTS[7:13])
        assert (other.status_code, other.content == WEIGHTS) == (200, True)


class TestCondition:
    def test_met_saves_the_download(self, client: TestClient, weights: str) -> None:
        answer = client.get(weights, headers={"If-None-Match": f'"other", W/{ETAG}', "Range": "bytes=0-6"})

        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", ETAG)

    def test_not_met_does_not(self, client: TestClient, weights: str) -> None:
        assert client.get(weights, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestLinks:
    """With ``presigned_seconds``, and blobs on S3."""

    @pytest.fixture
    def settings(self, settings: Settings, s3_endpoint: str) -> Settings:
        bucket = services.in_bucket(s3_endpoint, settings.data_dir.parent.name)
        further = {"s3_secret_access_key": SecretStr("test"), "presigned_seconds": 61}
        return settings.model_copy(update=bucket | further)

    def test_are_where_a_download_is_sent(self, client: TestClient, s3_endpoint: str, weights: str) -> None:
        answer = client.get(weights, follow_redirects=False)

        assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
        link = answer.headers["Location"]
        assert link.startswith(s3_endpoint)
        assert "X-Amz-Expires=61" in link
        assert httpx.get(link).content == WEIGHTS
        assert httpx.get(link, headers={"Range": "bytes=7-12"}).content == WEIGHTS[7:13]

    def test_are_not_given_where_the_answer_is_the_server_s(self, client: TestClient, weights: str) -> None:
        head = client.head(weights, follow_redirects=False)
        resumed = client.get(weights, headers={"Range": "bytes=7-12", "If-Range": ETAG}, follow_redirects=False)
        known = client.get(weights, headers={"If-None-Match": ETAG}, follow_redirects=False)

        assert (head.status_code, head.headers["ETag"]) == (200, ETAG)
        assert (resumed.status_code, resumed.content) == (206, WEIGHTS[7:13])
        assert known.status_code == 304

    def test_are_not_given_to_what_is_lost(
        self, client: TestClient, settings: Settings, job: str, weights: str
    ) -> None:
        Blobs.open(settings).delete_prefix(job.removeprefix("/v1/"))

        assert client.get(weights, follow_redirects=False).json()["code"] == "blob_not_found"

    def test_are_not_given_to_what_has_another_length(
        self, client: TestClient, settings: Settings, job: str, weights: str, tmp_path: Path
    ) -> None:
        (tmp_path / "short").write_bytes(WEIGHTS[:-1])
        Blobs.open(settings).put_file(f"{job.removeprefix('/v1/')}/attempt-1/model.safetensors", tmp_path / "short")

        answer = client.get(weights, follow_redirects=False)
        assert (answer.status_code, answer.json()["code"]) == (410, "blob_damaged")

    def test_are_followed_by_the_client(self, server: str, job: str, tmp_path: Path) -> None:
        with Client(server) as client:
            client.download(job.rpartition("/")[2], tmp_path / "out")

        assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS

    def test_are_not_given_to_local_files(self, settings: Settings, worker: Worker) -> None:
        local = settings.model_copy(update={"blob_url": f"file://{settings.data_dir}/blobs"})
        worker.settings = local
        job_id = worker.submit()
        worker.finish(worker.claim(), {"model.safetensors": WEIGHTS})

        with local_client(create_app(local)) as client:
            answer = client.get(f"/v1/jobs/{job_id}/artifacts/model.safetensors", follow_redirects=False)
            assert (answer.status_code, answer.content == WEIGHTS) == (200, True)
