"""A blob store that loses, garbles, refuses or dawdles: what a client gets is what the job made, or an error."""

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from damage import CONTENT, DAMAGES, EARLY, NAME, SHA256, Artifact, flipped, pulled, settings_of
from house import SECONDS, House
from limits import limit_files, no_room
from spoiler import Spoiler, broken_off, error, stalled

import processes
import services
from hands import Worker
from steps import at_once
from store.blobs import Blobs
from store.errors import BlobStoreFullError
from store.settings import Settings
from store.states import JobState
from vitpress import Client
from vitpress.errors import ApiError
from vitpress.transport import Retries

NO_BROKER = "redis://127.0.0.1:1/0"  # what is downloaded here needs none


def opened(directory: Path, **settings: str) -> House:
    house = House(f"sqlite:///{directory}/vitpress.db", NO_BROKER, directory, **settings)
    house.migrate()
    return house


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An API process whose blobs are files."""
    with opened(tmp_path_factory.mktemp("local")) as house, house.api():
        yield house


@pytest.fixture(scope="module")
def spoiler(s3_endpoint: str) -> Iterator[Spoiler]:
    with Spoiler(s3_endpoint) as spoiler:
        yield spoiler


@pytest.fixture(scope="module")
def far(spoiler: Spoiler, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An API process whose blobs are in S3, by way of the spoiler."""
    with (
        opened(tmp_path_factory.mktemp("far"), **services.in_bucket_by_environment(spoiler.url, "far")) as house,
        house.api(),
    ):
        yield house


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "spoiler" in request.fixturenames:
        request.getfixturevalue("spoiler").heal()


class TestAFileOfTheBlobStore:
    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_that_is_damaged_is_not_served_and_is_again_once_it_is_mended(
        self, local: House, damage: Callable[[bytes], bytes]
    ) -> None:
        artifact = Artifact(local)
        artifact.file.write_bytes(damage(CONTENT))
        artifact.is_refused_as("blob_damaged")
        artifact.file.write_bytes(CONTENT)
        assert artifact.get().content == CONTENT
        assert artifact.get(**EARLY).content == CONTENT[7:1007]

    def test_that_is_missing_is_said_to_be(self, local: House) -> None:
        artifact = Artifact(local)
        artifact.file.unlink()
        artifact.is_refused_as("blob_not_found")

    def test_that_was_served_before_is_looked_at_anew_once_anybody_wrote_to_it(self, local: House) -> None:
        """Also by somebody who covers it up."""
        artifact = Artifact(local)
        assert artifact.get().content == CONTENT
        before = artifact.file.stat()
        artifact.file.write_bytes(flipped(CONTENT))
        os.utime(artifact.file, ns=(before.st_atime_ns, before.st_mtime_ns))
        artifact.is_refused_as("blob_damaged")

    def test_that_is_cut_short_during_a_download_breaks_that_off(self, local: House) -> None:
        worker = Worker(settings_of(local))
        job_id, content = worker.submit(), CONTENT * 4  # more than two sockets hold
        worker.finish(worker.claim(), {NAME: content})
        file = local.directory / "blobs" / f"jobs/{job_id}/attempt-1/{NAME}"
        announced, received = pulled(
            local, f"/v1/jobs/{job_id}/artifacts/{NAME}", lambda: os.truncate(file, 30_000_000)
        )
        assert announced == len(content)
        assert received < len(content)

    def test_is_the_same_for_fifty_clients_at_once_of_whom_some_hang_up(self, local: House) -> None:
        artifact, digests = Artifact(local), list[str]()
        api = process_of(local)

        def one(index: int) -> None:
            with httpx.stream("GET", str(local.http.base_url.join(artifact.path)), timeout=SECONDS) as answer:
                chunks = answer.iter_raw()
                if index % 5 == 0:
                    next(chunks)
                else:
                    digests.append(hashlib.sha256(b"".join(chunks)).hexdigest())

        at_once(50, one)
        assert digests == [SHA256] * 40
        services.wait_until(lambda: str(artifact.file) not in {each.path for each in api.open_files()}, SECONDS)


class TestABlobInS3:
    def test_comes_whole(self, far: House) -> None:
        artifact = Artifact(far)
        assert artifact.get().content == CONTENT
        assert artifact.get(**EARLY).content == CONTENT[7:1007]
        assert artifact.get().content == CONTENT

    def test_with_a_bit_flipped_breaks_the_first_download_off_and_is_refused_then(
        self, far: House, tmp_path: Path
    ) -> None:
        artifact = Artifact(far)
        artifact.put(flipped(CONTENT))
        announced, received = pulled(far, artifact.path)
        assert announced == len(CONTENT)
        assert received < len(CONTENT)
        artifact.is_refused_as("blob_damaged")
        artifact.put(CONTENT)
        assert artifact.get().content == CONTENT

    def test_that_is_damaged_leaves_no_file_with_who_downloads_by_the_sdk(self, far: House, tmp_path: Path) -> None:
        artifact = Artifact(far)
        artifact.put(flipped(CONTENT))
        with (
            Client(str(far.http.base_url), retries=Retries(first_pause=0.01)) as client,
            pytest.raises(ApiError, match="no longer what the job made") as raised,
        ):
            client.download(artifact.job_id, tmp_path / "out")
        assert raised.value.code == "blob_damaged"
        assert not (tmp_path / "out" / NAME).exists()

    def test_of_which_a_part_is_asked_first_is_compared_first(self, far: House) -> None:
        artifact = Artifact(far)
        artifact.put(flipped(CONTENT))
        assert artifact.get(**EARLY).json()["code"] == "blob_damaged"

    @pytest.mark.parametrize("damage", ["cut short", "emptied", "with a byte more"])
    def test_of_another_length_is_refused_at_once(self, far: House, damage: str) -> None:
        artifact = Artifact(far)
        artifact.put(DAMAGES[damage](CONTENT))
        artifact.is_refused_as("blob_damaged")


class TestAnS3ThatFails:
    @pytest.mark.parametrize(
        "how",
        [error(500, "InternalError"), error(503, "SlowDown"), broken_off(0), broken_off(1_000_003)],
        ids=["500", "SlowDown", "reset", "reset in the body"],
    )
    def test_for_a_moment_costs_a_download_nothing(
        self, far: House, spoiler: Spoiler, how: Callable[..., None]
    ) -> None:
        artifact = Artifact(far)
        spoiler.spoil("GET", how, times=2)
        assert artifact.get().content == CONTENT
        assert artifact.get(**EARLY).content == CONTENT[7:1007]

    def test_for_longer_is_a_503_that_says_when_to_come_again(self, far: House, spoiler: Spoiler) -> None:
        artifact = Artifact(far)
        spoiler.spoil("HEAD", error(503, "SlowDown"))
        answer = artifact.get()
        assert (answer.status_code, answer.json()["code"]) == (503, "blob_store_unreachable")
        assert int(answer.headers["Retry-After"]) > 0
        spoiler.heal()
        assert artifact.get().content == CONTENT

    @pytest.mark.parametrize("how", [broken_off(1_000_003), stalled(1_000_003)], ids=["resets", "silence"])
    def test_in_the_middle_for_longer_breaks_the_download_off_within_a_minute(
        self, far: House, spoiler: Spoiler, how: Callable[..., None]
    ) -> None:
        artifact = Artifact(far)
        spoiler.spoil("GET", how)
        began = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError):
            far.http.get(artifact.path, timeout=SECONDS)
        assert time.monotonic() - began < 60
        spoiler.heal()
        assert artifact.get().content == CONTENT

    def test_leaves_the_other_routes_alone_while_downloads_wait_for_it(self, far: House, spoiler: Spoiler) -> None:
        artifacts = [Artifact(far) for _ in range(3)]
        spoiler.spoil("GET", stalled(0))
        clients = [socket.create_connection(("127.0.0.1", far.port)) for _ in range(60)]
        try:
            for index, client in enumerate(clients):
                path = artifacts[index % len(artifacts)].path
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{far.port}\r\n\r\n".encode())
            services.wait_until(lambda: ("GET", f"/{services.BUCKET}/far/{artifacts[0].key}") in spoiler.asked, SECONDS)
            assert far.job(artifacts[0].job_id)["state"] == "succeeded"
        finally:
            for client in clients:
                client.close()


class TestAJobWhoseResultCannotBePut:
    def test_at_first_goes_on_once_it_can_and_one_that_never_can_fails_by_name(
        self, new_database_url: str, redis_url: str, s3_endpoint: str, tmp_path: Path
    ) -> None:
        with (
            Spoiler(s3_endpoint) as spoiler,
            House(
                new_database_url,
                redis_url,
                tmp_path,
                **services.in_bucket_by_environment(spoiler.url, tmp_path.name),
            ) as house,
        ):
            house.migrate()
            spoiler.spoil("PUT", error(503, "SlowDown"), times=3)
            with house.api(VITPRESS_MAX_ATTEMPTS="1"), house.worker():
                job_id = house.submit()
                house.wait_for_end(job_id)
                assert house.job(job_id)["state"] == JobState.SUCCEEDED
                for item in house.http.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]:
                    content = house.http.get(item["url"]).content
                    assert hashlib.sha256(content).hexdigest() == item["sha256"]

                spoiler.spoil("PUT", error(403, "AccessDenied"))
                refused = house.submit()
                house.wait_for_end(refused)
                assert house.job(refused)["state"] == JobState.FAILED
                assert house.job(refused)["error"]["code"] == "blob_store_unavailable"

    def test_for_want_of_room_fails_by_name_and_leaves_nothing(
        self, new_database_url: str, redis_url: str, tmp_path: Path
    ) -> None:
        with House(new_database_url, redis_url, tmp_path) as house:
            house.migrate()
            with house.api(VITPRESS_MAX_ATTEMPTS="1"), house.worker() as worker:
                limit_files(worker.pid, 500_000)  # less than the result has; its runners inherit that
                job_id = house.submit()
                house.wait_for_end(job_id)
                job = house.job(job_id)
            assert job["state"] == JobState.FAILED
            assert job["error"]["code"] in {"disk_full", "blob_store_full"}
            assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


class TestADiskThatIsFull:
    def test_takes_no_part_of_a_blob(self, tmp_path: Path) -> None:
        (tmp_path / "weights").write_bytes(CONTENT)
        blobs = Blobs.open(Settings(data_dir=tmp_path))
        with no_room(os.getpid(), 1 << 20), pytest.raises(BlobStoreFullError, match="no room"):
            blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "weights")
        assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
        blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "weights")
        assert blobs.head("jobs/1/attempt-1/weights") == len(CONTENT)

    def test_is_a_507_to_who_uploads_and_the_upload_goes_on_later(self, tmp_path: Path) -> None:
        with opened(tmp_path) as house, house.api() as api:
            tus = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
            made = house.http.post("/v1/uploads", headers={**tus, "Upload-Length": str(len(CONTENT))})
            path = made.headers["Location"]
            with no_room(api.pid, 3 << 20):
                full = house.http.patch(path, headers={**tus, "Upload-Offset": "0"}, content=CONTENT)
                assert (full.status_code, full.json()["code"]) == (507, "disk_full")
                assert int(full.headers["Retry-After"]) > 0
            offset = int(house.http.head(path, headers=tus).headers["Upload-Offset"])
            rest = house.http.patch(path, headers={**tus, "Upload-Offset": str(offset)}, content=CONTENT[offset:])
            assert rest.status_code == 204

            body = {"name": "brought", "upload": path.rpartition("/")[2]}
            with no_room(api.pid, 3 << 20):
                full = house.http.post("/v1/datasets", json=body)
                assert (full.status_code, full.json()["code"]) == (507, "disk_full")
                assert int(full.headers["Retry-After"]) > 0
            assert [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()] == []
            assert house.http.post("/v1/datasets", json=body).status_code == 202
            [blob] = [each for each in (tmp_path / "blobs").rglob("*") if each.is_file()]
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == SHA256


def process_of(house: House) -> psutil.Process:
    [api] = [each for each in processes.descendants(os.getpid()) if str(house.port) in processes.command_of(each)]
    return api
