"""Byte ranges and entity tags, as RFC 9110 has them."""

import pytest

from api.errors import RangeNotSatisfiableError
from api.ranges import not_modified, requested

SIZE, TAG = 101, '"abc"'


class TestRange:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-0", (0, 1)),
            ("bytes=7-12", (7, 13)),
            ("bytes=7-", (7, SIZE)),
            ("bytes=7-999", (7, SIZE)),
            ("bytes=100-", (100, SIZE)),
            ("bytes=-7", (94, SIZE)),
            ("bytes=-999", (0, SIZE)),
            ("Bytes=7-12", (7, 13)),
            ("bytes=7-12 ", (7, 13)),
        ],
    )
    def test_is_half_open_and_ends_with_the_file(self, header: str, expected: tuple[int, int]) -> None:
        assert requested(header, None, SIZE, TAG) == expected

    @pytest.mark.parametrize("header", ["bytes=101-", "bytes=101-102", "bytes=-0", "bytes=999999999999999999-"])
    def test_without_a_byte_of_the_file_is_not_satisfiable(self, header: str) -> None:
        with pytest.raises(RangeNotSatisfiableError) as raised:
            requested(header, None, SIZE, TAG)

        assert raised.value.size == SIZE

    @pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
    def test_of_an_empty_file_is_not_satisfiable(self, header: str) -> None:
        with pytest.raises(RangeNotSatisfiableError):
            requested(header, None, 0, TAG)

    @pytest.mark.parametrize(
        "header",
        [
            None,
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=12-7",
            "bytes=--7",
            "bytes=0-1,7-8",
            "lines=0-1",
            "bytes=٣-٤",
            "bytes=" + "9" * 5_000 + "-",
        ],
    )
    def test_that_is_malformed_or_manifold_is_ignored(self, header: str | None) -> None:
        assert requested(header, None, SIZE, TAG) is None

    def test_applies_to_the_version_that_if_range_names(self) -> None:
        assert requested("bytes=7-", TAG, SIZE, TAG) == (7, SIZE)

    @pytest.mark.parametrize("if_range", ['"other"', 'W/"abc"', "abc", "Wed, 21 Oct 2015 07:28:00 GMT"])
    def test_of_any_other_version_is_ignored(self, if_range: str) -> None:
        assert requested("bytes=7-", if_range, SIZE, TAG) is None
        assert requested("bytes=999-", if_range, SIZE, TAG) is None


class TestNotModified:
    @pytest.mark.parametrize("header", [TAG, f"W/{TAG}", f'"other", {TAG}', "*", " * "])
    def test_when_the_client_has_this_version(self, header: str) -> None:
        assert not_modified(header, TAG)

    @pytest.mark.parametrize("header", [None, "", '"other"', "abc", '"xabc"'])
    def test_not_otherwise(self, header: str | None) -> None:
        assert not not_modified(header, TAG)
