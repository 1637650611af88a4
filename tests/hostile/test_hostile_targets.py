"""Webhooks of somebody who owns the name that they go to, and names that timm would take for more than a name."""

import socket
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.architectures import Arguments
from core.errors import VitpressError
from core.hub import fetch
from core.own_models import on_meta
from receiver import receiving
from store.outbox import Letter
from store.webhooks import new_secret
from team import Team
from vitpress.artifact import ArtifactError, load
from worker import postman
from worker.postman import send

PUBLIC, PRIVATE = "8.8.8.8", "127.0.0.1"


def letter(url: str) -> Letter:
    return Letter("message-7", "webhook-1", 1, url, new_secret(), b"{}")


class Resolver:
    """Of a name whose owner changes their mind: each answer once, and then the last one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, *arguments: Any, **options: Any) -> Any:
        if host != "rebound.test":
            return self._real(host, *arguments, **options)
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return self._real(answer, *arguments, **options)


class TestAWebhook:
    def test_of_a_name_that_turns_private_after_it_was_added_is_not_sent(
        self, team: Team, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with receiving() as receiver:
            resolver = Resolver(monkeypatch, PUBLIC, PRIVATE)
            url = f"http://rebound.test:{receiver.port}/hook"
            assert team.client("anna").post("/v1/webhooks", json={"url": url}).status_code == 201
            assert resolver.asked == 1
            answer = send(letter(url), allow_private=False)
        assert (answer.status, receiver.requests) == (None, [])
        assert "private" in (answer.error or "")

    def test_of_a_name_that_turns_private_between_look_and_connection_goes_where_it_was_looked_at(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is sent to the private address: the name is not asked a second time."""
        monkeypatch.setattr(postman, "TIMEOUT_SECONDS", 1.0)
        with receiving() as receiver:
            resolver = Resolver(monkeypatch, PUBLIC, PRIVATE)
            answer = send(letter(f"http://rebound.test:{receiver.port}/hook"), allow_private=False)
        assert (answer.status, receiver.requests, resolver.asked) == (None, [], 1)
        assert "private" not in (answer.error or "")

    def test_that_redirects_to_this_machine_is_not_followed(self) -> None:
        with receiving() as receiver, receiving() as inner:
            receiver.answers, receiver.location = [307], inner.url
            assert send(letter(receiver.url), allow_private=True).status == 307
        assert (len(receiver.requests), inner.requests) == (1, [])

    def test_with_a_line_break_in_its_url_adds_no_header(self, team: Team) -> None:
        anna: TestClient = team.client("anna")
        for url in ("http://8.8.8.8/\r\nX-Injected: 1", "http://8.8.8.8\r\n.example/", "http://8.8.8.8/%0d%0aX: 1"):
            made = anna.post("/v1/webhooks", json={"url": url})
            assert made.status_code in {201, 422}
            if made.status_code == 201:
                assert made.json()["url"].isprintable()
                assert " " not in made.json()["url"]


NAMES = [
    "hf-hub:timm/vit_tiny_patch16_224", "hf_hub:timm/vit_tiny_patch16_224", "local-dir:/etc", "local_dir:/etc",
    "timm/vit_tiny_patch16_224", "/etc/passwd", "../vit", "vit_tiny_patch16_224@main", "vit_tiny_patch16_224/..",
    "HF-HUB:x/y", " vit_tiny_patch16_224", "vit_tiny_patch16_224\n", "vit_tiny_patch16_224\0",
]  # fmt: skip
ARGUMENTS: list[dict[str, Any]] = [
    {"pretrained": True}, {"pretrained_cfg": {"file": "/etc/passwd"}}, {"pretrained_cfg_overlay": {"hf_hub_id": "x/y"}},
    {"checkpoint_path": "/etc/passwd"}, {"cache_dir": "/etc"}, {"hub_id": "x/y"}, {"hf_hub_id": "x/y"},
    {"features_only": True}, {"block_fn": "os.system"}, {"embed_layer": "x"}, {"weight_init": "jax"}, {"__class__": 1},
]  # fmt: skip


class TestANameForTimm:
    """Whatever field it comes by: the catalogue decides, and timm is not asked."""

    def test_is_refused_as_a_jobs_model(self, team: Team) -> None:
        anna = team.client("anna")
        for name in NAMES:
            body = {"model": name, "dataset": "local:shoes", "recipe": {"target_ratio": 0.5}}
            assert anna.post("/v1/jobs", json=body).status_code == 422, name
            assert anna.post("/v1/plans", json={"model": name, "recipe": {"target_ratio": 0.5}}).status_code == 422

    def test_is_refused_as_an_own_models(self, team: Team) -> None:
        anna = team.client("anna")
        for name in NAMES:
            assert anna.post("/v1/models", json={"name": "x", "upload": "x", "architecture": name}).status_code == 422
            assert anna.post("/v1/models", json={"name": "x", "hub_id": name + "/.."}).status_code == 422, name
        for kwargs in ARGUMENTS:
            body = {"name": "x", "upload": "x", "architecture": "vit_tiny_patch16_224", "kwargs": kwargs}
            assert anna.post("/v1/models", json=body).status_code == 422, kwargs

    def test_is_refused_by_what_would_build_it(self, tmp_path: Path) -> None:
        for name in NAMES:
            with pytest.raises(VitpressError):
                on_meta(name, Arguments())
            with pytest.raises(VitpressError):
                fetch(name + ":", tmp_path, token=None, allowed=("timm/*", "*"), max_bytes=1)

    def test_is_refused_in_an_artifact(self, tmp_path: Path) -> None:
        """Which its user may have from anybody."""
        preprocessing = '"preprocessing":{"input_size":[3,8,8],"mean":[0],"std":[1]}'
        for name in NAMES[:-2]:
            (tmp_path / "config.json").write_text(f'{{"architecture":"{name}",{preprocessing}}}')
            with pytest.raises(ArtifactError):
                load(tmp_path)
        for argument in ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"):
            config = f'{{"architecture":"vit_tiny_patch16_224","kwargs":{{"{argument}":"x"}},{preprocessing}}}'
            (tmp_path / "config.json").write_text(config)
            with pytest.raises(ArtifactError, match="weights come from"):
                load(tmp_path)
