import hashlib
import json
import os
from pathlib import Path

import pytest
from faulty_server import Answer, Handler, Script, hang_up, json_answer

from vitpress import Client
from vitpress.errors import IntegrityError, ServerUnreachableError, UnexpectedAnswerError
from vitpress.transport import Retries
from vitpress.values import Artifact

CONTENT = os.urandom(100_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
IMPATIENT = Retries(stream_attempts=3, first_pause=0)


def listing(name: str = "model.safetensors", size: int = len(CONTENT), sha256: str = SHA256) -> Answer:
    item = {"name": name, "size": size, "sha256": sha256, "media_type": "application/octet-stream", "url": "/"}
    return json_answer(json.dumps({"items": [item]}))


def whole(content: bytes = CONTENT) -> Answer:
    return lambda handler: handler.send(200, content, ETag=f'"{SHA256}"')


def cut_after(count: int) -> Answer:
    """The file's beginning, and a connection that breaks."""
    return lambda handler: handler.send(200, CONTENT[:count], len(CONTENT), ETag=f'"{SHA256}"')


def rest(handler: Handler) -> None:
    """What the request's Range asks for."""
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.send(206, CONTENT[start:], ETag=f'"{SHA256}"', Content_Range=span)


def download(server: Script, directory: Path) -> Path:
    with Client(server.url, retries=IMPATIENT) as client:
        return client.download("job", directory)


class TestADownload:
    def test_puts_the_listed_files_into_the_directory_and_nothing_else(self, tmp_path: Path) -> None:
        with Script(listing(), whole()) as server:
            assert download(server, tmp_path / "new" / "deep") == tmp_path / "new" / "deep"
        assert [path.name for path in (tmp_path / "new" / "deep").iterdir()] == ["model.safetensors"]
        assert (tmp_path / "new" / "deep" / "model.safetensors").read_bytes() == CONTENT

    def test_of_an_empty_file_makes_an_empty_file(self, tmp_path: Path) -> None:
        with Script(
            listing(size=0, sha256=hashlib.sha256().hexdigest()), lambda handler: handler.send(200, b"")
        ) as server:
            download(server, tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == b""

    def test_tells_how_many_bytes_are_here(self, tmp_path: Path) -> None:
        counts: list[int] = []

        def record(artifact: Artifact, count: int) -> None:
            counts.append(count)

        with Script(listing(), whole()) as server, Client(server.url) as client:
            client.download("job", tmp_path, record)
        assert counts == sorted(counts)
        assert counts[-1] == len(CONTENT)

    def test_keeps_a_file_that_is_there_with_the_right_content(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(CONTENT)
        with Script(listing()) as server:
            download(server, tmp_path)
            assert [seen.path for seen in server.seen] == ["/v1/jobs/job/artifacts"]

    def test_replaces_a_file_that_is_there_with_other_content(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_bytes(bytes(len(CONTENT)))
        with Script(listing(), whole()) as server:
            download(server, tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT


class TestExports:
    @pytest.mark.parametrize("name", ["model.onnx", "model.int8.onnx", "model.pt2"])
    def test_are_left_out_on_request(self, tmp_path: Path, name: str) -> None:
        with Script(listing(name), listing(name), whole()) as server, Client(server.url) as client:
            client.download("job", tmp_path, exports=False)
            assert [path.name for path in tmp_path.iterdir()] == []
            client.download("job", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [name]


class TestABrokenConnection:
    def test_is_continued_where_it_broke(self, tmp_path: Path) -> None:
        with Script(listing(), cut_after(40_009), rest) as server:
            download(server, tmp_path)
            resumed = server.seen[-1].headers
        assert (resumed["range"], resumed["if-range"]) == ("bytes=40009-", f'"{SHA256}"')
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT

    def test_is_continued_by_a_later_call(self, tmp_path: Path) -> None:
        with (
            Script(listing(), cut_after(70_001), hang_up, hang_up, hang_up) as server,
            pytest.raises(ServerUnreachableError),
        ):
            download(server, tmp_path)
        assert not (tmp_path / "model.safetensors").exists()
        with Script(listing(), rest) as server:
            download(server, tmp_path)
            assert server.seen[-1].headers["range"] == "bytes=70001-"
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT

    def test_starts_over_where_the_server_sends_the_whole_file(self, tmp_path: Path) -> None:
        with Script(listing(), cut_after(40_009), whole()) as server:
            download(server, tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT

    def test_may_happen_any_number_of_times_as_long_as_bytes_come(self, tmp_path: Path) -> None:
        def little(handler: Handler) -> None:
            start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            handler.send(206, CONTENT[start : start + 997], len(CONTENT) - start)

        with Script(listing(), cut_after(997), *[little] * (IMPATIENT.stream_attempts + 5), rest) as server:
            download(server, tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT

    def test_that_is_all_a_server_has_to_offer_is_an_error_in_the_end(self, tmp_path: Path) -> None:
        with Script(listing(), hang_up, hang_up, hang_up) as server, pytest.raises(ServerUnreachableError):
            download(server, tmp_path)

    def test_never_makes_two_files_into_one(self, tmp_path: Path) -> None:
        """What is left of one job's file is not the beginning of another's of the same name."""
        other = "0" * 64
        with (
            Script(
                listing(sha256=other), lambda h: h.send(200, b"x" * 11, len(CONTENT)), hang_up, hang_up, hang_up
            ) as server,
            pytest.raises(ServerUnreachableError),
        ):
            download(server, tmp_path)
        with Script(listing(), whole()) as server:
            download(server, tmp_path)
            assert "range" not in server.seen[-1].headers
        assert (tmp_path / "model.safetensors").read_bytes() == CONTENT


class TestWrongBytes:
    def test_are_an_error_and_leave_no_file(self, tmp_path: Path) -> None:
        wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
        with Script(listing(), whole(wrong)) as server, pytest.raises(IntegrityError, match="expected sha256"):
            download(server, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_after_a_resume_are_an_error_and_leave_no_file(self, tmp_path: Path) -> None:
        def corrupted(handler: Handler) -> None:
            handler.send(206, bytes(len(CONTENT) - 40_009), ETag=f'"{SHA256}"')

        with Script(listing(), cut_after(40_009), corrupted) as server, pytest.raises(IntegrityError):
            download(server, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_under_another_etag_are_refused_before_they_are_read(self, tmp_path: Path) -> None:
        with (
            Script(listing(), lambda handler: handler.send(200, CONTENT, ETag='"other"')) as server,
            pytest.raises(IntegrityError, match="ETag"),
        ):
            download(server, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_beyond_the_listed_size_are_an_error(self, tmp_path: Path) -> None:
        with Script(listing(), whole(CONTENT + b"x")) as server, pytest.raises(IntegrityError, match="with more"):
            download(server, tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_in_a_part_that_the_server_cannot_continue_are_discarded(self, tmp_path: Path) -> None:
        with (
            Script(listing(), cut_after(40_009), lambda handler: handler.send(416)) as server,
            pytest.raises(IntegrityError, match="shorter"),
        ):
            download(server, tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestAnArtifactsName:
    @pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a\\b", "..", ""])
    def test_cannot_leave_the_directory(self, tmp_path: Path, name: str) -> None:
        with Script(listing(name)) as server, pytest.raises(UnexpectedAnswerError, match="no plain file name"):
            download(server, tmp_path / "inside")
        assert list(tmp_path.iterdir()) == []
