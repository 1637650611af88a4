"""The command, run in this process: with real arguments, streams and exit codes."""

import json
import sys
from io import StringIO
from typing import NamedTuple

import pytest

from vitpress import cli


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


class Shell:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str, stdin: str = "") -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["vitpress", *arguments])
        self._monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        self._capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code or 0
        captured = self._capsys.readouterr()
        return Ran(int(str(code)), captured.out, captured.err)
