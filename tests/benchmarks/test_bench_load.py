"""The load benchmark from end to end, with next to no load: that it measures, and that it notices what goes wrong."""

import re
from pathlib import Path

import pytest

from benchmarks.load import __main__ as benchmark
from benchmarks.load import servers
from benchmarks.load.downloads import fetch
from benchmarks.load.steady import steady
from benchmarks.load.wrk import Request, load

SMALL = ["--rounds", "1", "--seconds", "1", "--connections", "2", "--rows", "400", "--waiting", "100", "--streams", "6"]


class TestTheBenchmark:
    def test_tells_of_each_section_with_its_errors_and_what_a_crash_has_lost(self) -> None:
        before = benchmark.RESULTS.read_text() if benchmark.RESULTS.exists() else None
        sections = ["polls", "streams", "submissions"]

        done = benchmark.main([*SMALL, *(part for each in sections for part in ("--only", each))])

        told = "\n".join(done.lines)
        assert len(re.findall(r"^## ", told, re.MULTILINE)) == len(sections)
        [polls] = re.findall(
            r"^\| 1 \| (\d+) \| 0 \| (\d+) \| 0 \| (\d\.\d\d)", told.split("## Event")[0], re.MULTILINE
        )
        assert all(float(figure) > 0 for figure in polls[:2])
        assert "| 6 | 6 | 6 | 18 of 18 |" in told
        assert "lost in the crash: **0**" in told
        assert (benchmark.RESULTS.read_text() if benchmark.RESULTS.exists() else None) == before


class TestErrors:
    """A client that took anything for an answer would find every server fast."""

    def test_are_counted_where_the_status_is_another(self, tmp_path: Path) -> None:
        with servers.bare(tmp_path, 1) as bare:
            found = load(bare, Request(["/nothing"], {}), connections=1, seconds=1, directory=tmp_path)
            paced = steady(bare.ports, ["/nothing"], {}, per_second=20, seconds=1)
        assert (found.answers, found.per_second) == (0, 0)
        assert found.errors > 0
        assert paced.errors == 20

    def test_of_a_download_that_is_short_raise(self, tmp_path: Path) -> None:
        (tmp_path / "short").write_bytes(b"x" * 999_999)
        with servers.nginx(tmp_path, tmp_path, 1) as port, pytest.raises(RuntimeError, match="failed"):
            fetch([port], "/short", "", 1, 1)
