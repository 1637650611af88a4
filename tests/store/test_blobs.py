"""The same behaviour on local files and on an S3 peer."""

import hashlib
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

import services
from store.blobs import Blobs
from store.errors import BlobDamagedError, BlobNotFoundError
from store.settings import Settings

CONTENT = bytes(range(251)) * 30_011  # more than one part of a multipart upload, and more than one chunk


@pytest.fixture(params=["file", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "file":
        return Blobs.open(Settings(data_dir=tmp_path))
    return in_bucket(str(request.getfixturevalue("s3_endpoint")), tmp_path.name)


def in_bucket(endpoint: str, prefix: str) -> Blobs:
    return Blobs.open(Settings(**services.in_bucket(endpoint, prefix)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    return path


class TestPutting:
    def test_it_tells_size_and_digest_of_what_it_stored(self, blobs: Blobs, file: Path) -> None:
        stored = blobs.put_file("jobs/1/attempt-1/weights", file)
        assert (stored.size, stored.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        assert blobs.head("jobs/1/attempt-1/weights") == len(CONTENT)

    def test_a_blob_that_was_there_is_replaced(self, blobs: Blobs, file: Path, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"other")
        blobs.put_file("jobs/1/attempt-1/weights", file)
        blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "other")
        assert b"".join(blobs.stream("jobs/1/attempt-1/weights")) == b"other"


class TestLargeBlobs:
    def test_go_to_s3_in_parts(self, s3_endpoint: str, tmp_path: Path) -> None:
        """A single request may put 5 GiB, and a part that fails is sent again alone."""
        content = CONTENT + CONTENT[::-1]
        assert len(content) > 12 << 20
        (tmp_path / "large").write_bytes(content)
        blobs = in_bucket(s3_endpoint, tmp_path.name)
        stored = blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "large")
        tag = httpx.head(f"{s3_endpoint}/{services.BUCKET}/{tmp_path.name}/jobs/1/attempt-1/weights").headers["ETag"]
        assert tag.strip('"').endswith("-3")  # S3's way to say: of three parts
        assert blobs.get_file("jobs/1/attempt-1/weights", tmp_path / "fetched") == stored
        assert (tmp_path / "fetched").read_bytes() == content


class TestLinks:
    def test_open_the_blob_for_whoever_has_one(self, s3_endpoint: str, file: Path, tmp_path: Path) -> None:
        blobs = in_bucket(s3_endpoint, tmp_path.name)
        blobs.put_file("jobs/1/attempt-1/weights", file)
        link = blobs.link("jobs/1/attempt-1/weights", timedelta(seconds=61))
        assert link is not None
        assert {"X-Amz-Signature", "X-Amz-Expires"} <= set(parse_qs(urlsplit(link).query))
        assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == ["61"]
        assert httpx.get(link).content == CONTENT
        part = httpx.get(link, headers={"Range": "bytes=7-16"})
        assert (part.status_code, part.content) == (206, CONTENT[7:17])

    def test_local_files_have_none(self, tmp_path: Path) -> None:
        assert Blobs.open(Settings(data_dir=tmp_path)).link("jobs/1/attempt-1/weights", timedelta(seconds=61)) is None


class TestStreaming:
    def test_the_bytes_come_back_in_chunks(self, blobs: Blobs, file: Path) -> None:
        blobs.put_file("jobs/1/attempt-1/weights", file)
        chunks = list(blobs.stream("jobs/1/attempt-1/weights"))
        assert len(chunks) > 1
        assert b"".join(chunks) == CONTENT

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [
            (3, 17, CONTENT[3:17]),
            (len(CONTENT) - 5, None, CONTENT[-5:]),
            (7, 2 * len(CONTENT), CONTENT[7:]),
            (11, 11, b""),
            (len(CONTENT), None, b""),
        ],
    )
    def test_a_range_is_half_open(self, blobs: Blobs, file: Path, start: int, end: int | None, expected: bytes) -> None:
        blobs.put_file("jobs/1/attempt-1/weights", file)
        assert b"".join(blobs.stream("jobs/1/attempt-1/weights", start, end)) == expected

    def test_a_missing_blob_is_an_error_before_the_first_chunk(self, blobs: Blobs) -> None:
        with pytest.raises(BlobNotFoundError, match="jobs/2"):
            blobs.stream("jobs/2/attempt-1/weights")


class TestFetching:
    def test_it_tells_size_and_digest_of_what_it_wrote(self, blobs: Blobs, file: Path, tmp_path: Path) -> None:
        stored = blobs.put_file("jobs/1/attempt-1/weights", file)
        assert blobs.get_file("jobs/1/attempt-1/weights", tmp_path / "fetched") == stored
        assert (tmp_path / "fetched").read_bytes() == CONTENT

    def test_an_empty_file_is_one_too(self, blobs: Blobs, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        stored = blobs.put_file("jobs/1/attempt-1/empty", tmp_path / "empty")
        assert blobs.get_file("jobs/1/attempt-1/empty", tmp_path / "fetched") == stored

    def test_of_a_missing_blob_no_file_is_made(self, blobs: Blobs, tmp_path: Path) -> None:
        with pytest.raises(BlobNotFoundError, match="jobs/2"):
            blobs.get_file("jobs/2/attempt-1/weights", tmp_path / "fetched")
        assert not (tmp_path / "fetched").exists()


class TestReadingAtOnce:
    def test_gives_what_was_put_and_nothing_else(self, blobs: Blobs, file: Path, tmp_path: Path) -> None:
        stored = blobs.put_file("jobs/1/attempt-1/weights", file)
        assert blobs.read("jobs/1/attempt-1/weights", stored) == CONTENT
        for damaged in (CONTENT[:-1], CONTENT[:-1] + b"x"):
            (tmp_path / "damaged").write_bytes(damaged)
            blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "damaged")
            with pytest.raises(BlobDamagedError, match="weights"):
                blobs.read("jobs/1/attempt-1/weights", stored)


class TestAVersion:
    def test_is_never_mixed_with_another(self, blobs: Blobs, file: Path, tmp_path: Path) -> None:
        """What was opened is read to its end, or is an error."""
        (tmp_path / "other").write_bytes(CONTENT[::-1])
        blobs.put_file("jobs/1/attempt-1/weights", file)
        with closing(blobs.reader("jobs/1/attempt-1/weights")) as reader:
            blobs.put_file("jobs/1/attempt-1/weights", tmp_path / "other")
            try:
                assert reader.read(0, 1009) == CONTENT[:1009]  # a file stays as long as it is open
            except BlobDamagedError:
                assert not reader.near
        with closing(blobs.reader("jobs/1/attempt-1/weights")) as other:
            assert other.version != reader.version


class TestDeleting:
    def test_one_blob_goes_alone_and_a_missing_one_is_fine(self, blobs: Blobs, file: Path) -> None:
        for key in ("jobs/1/attempt-1/a", "jobs/1/attempt-1/b"):
            blobs.put_file(key, file)
        for _ in range(2):
            blobs.delete("jobs/1/attempt-1/a")
        with pytest.raises(BlobNotFoundError):
            blobs.head("jobs/1/attempt-1/a")
        assert blobs.head("jobs/1/attempt-1/b") == len(CONTENT)

    def test_a_prefix_goes_with_all_below_it_and_nothing_beside_it(self, blobs: Blobs, file: Path) -> None:
        for key in ("jobs/1/attempt-1/a", "jobs/1/attempt-2/b", "jobs/11/attempt-1/a"):
            blobs.put_file(key, file)
        blobs.delete_prefix("jobs/1")
        for key in ("jobs/1/attempt-1/a", "jobs/1/attempt-2/b"):
            with pytest.raises(BlobNotFoundError):
                blobs.head(key)
        assert blobs.head("jobs/11/attempt-1/a") == len(CONTENT)

    def test_what_a_killed_process_left_half_written_goes_with_its_prefix(self, file: Path, tmp_path: Path) -> None:
        blobs = Blobs.open(Settings(data_dir=tmp_path))
        blobs.put_file("jobs/1/attempt-1/a", file)
        (tmp_path / "blobs" / "jobs" / "1" / "attempt-1" / ".of_a_killed_process.part").touch()
        blobs.delete_prefix("jobs/1/attempt-1")
        assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []

    def test_an_empty_prefix_is_fine(self, blobs: Blobs) -> None:
        blobs.delete_prefix("jobs/3")


class TestBeingThere:
    def test_a_store_that_answers_is_there(self, blobs: Blobs) -> None:
        blobs.ping()

    def test_an_address_of_another_kind_is_refused(self) -> None:
        with pytest.raises(ValueError, match="ftp://"):
            Blobs.open(Settings(blob_url="ftp://somewhere"))
