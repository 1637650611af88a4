"""Who gets in: this machine alone in local mode, whoever has a key otherwise, and not by trying."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import services
from api.errors import TooManyFailuresError
from api.throttle import ADDRESSES, BURST, KNOWN_KEYS, REFILL_SECONDS, Throttle
from store.settings import Settings
from store.values import Scope
from team import Team

WRONG = "vp_0123456789ab_" + "x" * 43


@pytest.fixture
def here(app: FastAPI) -> Iterator["Caller"]:
    """Asks a server in local mode."""
    with Caller(app) as caller:
        yield caller


class Caller(ExitStack):
    def __init__(self, app: FastAPI) -> None:
        super().__init__()
        self.app = app
        with_lifespan = self.enter_context(TestClient(app))
        self.state = with_lifespan.app_state

    def status(self, address: str = "127.0.0.1", host: str = "127.0.0.1:8000", **headers: str) -> int:
        client = TestClient(self.app, client=(address, 50000))
        client.app_state.update(self.state)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = client.get("/v1/whoami", headers={"Host": host} | named)
        if answer.status_code != 200:
            assert answer.json()["code"] == "not_local"
        return answer.status_code


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestLocalMode:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000"])
    def test_serves_this_machine(self, here: Caller, address: str, host: str) -> None:
        assert here.status(address, host) == 200

    @pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.7", "", "x"])
    def test_serves_no_other_whatever_it_claims(self, here: Caller, address: str) -> None:
        assert here.status(address) == 403
        assert (
            here.status(address, X_Forwarded_For="127.0.0.1", X_Real_IP="127.0.0.1", Forwarded="for=127.0.0.1") == 403
        )

    @pytest.mark.parametrize(
        "host",
        [
            "rebound.example",
            "localhost.rebound.example",
            "192.0.2.7:8000",
            "a@rebound.example",
            "[::1",
            "",
            "localhost:x@y",
        ],
    )
    def test_answers_to_its_own_name_alone(self, here: Caller, host: str) -> None:
        """A page elsewhere may have its name resolved to 127.0.0.1."""
        assert here.status(host=host) == 403

    @pytest.mark.parametrize("header", ["X_Forwarded_For", "X_Forwarded_Host", "X_Real_IP", "Forwarded"])
    def test_serves_nothing_that_a_proxy_forwards(self, here: Caller, header: str) -> None:
        assert here.status(**{header: "127.0.0.1"}) == 403

    @pytest.mark.parametrize(
        ("origin", "status"),
        [
            ("http://127.0.0.1:8000", 200),
            ("http://localhost:3000", 200),
            ("https://rebound.example", 403),
            ("null", 403),
            ("http://[::1", 403),
        ],
    )
    def test_takes_forms_of_its_own_pages_alone(self, here: Caller, origin: str, status: int) -> None:
        assert here.status(Origin=origin) == status

    @pytest.mark.parametrize(("listening", "loopback"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]")])  # noqa: S104
    def test_holds_under_uvicorn_however_it_listens(
        self, settings: Settings, tmp_path: Path, listening: str, loopback: str
    ) -> None:
        with listening_on(listening, loopback, settings, tmp_path / "log") as port:
            assert ask(loopback, port) == 200
            assert ask(loopback, port, Host="rebound.example") == 403
            assert ask(loopback, port, **{"X-Forwarded-For": "192.0.2.7"}) == 403
            for own in own_addresses(socket.AF_INET6 if listening == "::" else socket.AF_INET):
                assert ask(own, port) == 403
                assert ask(own, port, Host="127.0.0.1") == 403
                assert ask(own, port, Host="localhost", **{"X-Forwarded-For": "127.0.0.1"}) == 403


@contextmanager
def listening_on(host: str, loopback: str, settings: Settings, log: Path) -> Iterator[int]:
    """The API in local mode, as somebody might start it who trusts every proxy: its port."""
    port = services.free_port()
    environment = os.environ | {
        "VITPRESS_AUTH": "local",
        "VITPRESS_DATABASE_URL": settings.database_url,
        "VITPRESS_DATA_DIR": str(settings.data_dir),
        "FORWARDED_ALLOW_IPS": "*",
    }
    command = [sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory", "--host", host, "--port", str(port)]
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server:
        try:
            services.wait_until(lambda: server.poll() is not None or answers(loopback, port), services.START_SECONDS)
            assert server.poll() is None, log.read_text()
            yield port
        finally:
            server.kill()


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host.strip("[]"), port), timeout=1).close()
    except OSError:
        return False
    return True


def ask(host: str, port: int, **headers: str) -> int:
    return httpx.get(f"http://{host}:{port}/v1/whoami", headers=headers, trust_env=False).status_code


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """How others would reach this machine; none where it has no network. No packet is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1" if family is socket.AF_INET else "2001:db8::1", 9))
        except OSError:
            return []
        address = str(probe.getsockname()[0])
    return [f"[{address}]" if ":" in address else address]


class TestKeys:
    @pytest.mark.parametrize(
        "header", [None, "Bearer", "Bearer vp_", f"Bearer {WRONG}", "Basic dnA6eA==", f"vp {WRONG}"]
    )
    def test_without_a_valid_one_nothing_is_said(self, team: Team, header: str | None) -> None:
        headers = {} if header is None else {"Authorization": header}
        answer = team.with_key(None).get("/v1/jobs", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_a_key_works_from_anywhere_and_under_any_name(self, team: Team) -> None:
        answer = team.client("anna").get("/v1/whoami", headers={"Host": "any.example", "Origin": "https://a.example"})
        assert answer.status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestTrying:
    def test_is_slowed_down_by_address(self, team: Team) -> None:
        guesser = team.with_key(WRONG, "198.51.100.3")
        assert [guesser.get("/v1/jobs").status_code for _ in range(BURST)] == [401] * BURST
        refused = guesser.get("/v1/jobs")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_failures")
        assert 1 <= int(refused.headers["Retry-After"]) <= REFILL_SECONDS
        assert team.with_key(WRONG, "198.51.100.4").get("/v1/jobs").status_code == 401

    def test_holds_up_new_keys_of_that_address_and_none_that_came_in_before(self, team: Team) -> None:
        known, new = team.key("anna", Scope.READ), team.key("bert", Scope.READ)
        address = "198.51.100.3"
        assert team.with_key(known, address).get("/v1/jobs").status_code == 200
        for _ in range(BURST):
            team.with_key(WRONG, address).get("/v1/jobs")
        assert team.with_key(known, address).get("/v1/jobs").status_code == 200
        assert team.with_key(new, address).get("/v1/jobs").status_code == 429
        assert team.with_key(new, "198.51.100.4").get("/v1/jobs").status_code == 200

    def test_no_key_at_all_is_no_guess(self, team: Team) -> None:
        nobody = team.with_key(None, "198.51.100.3")
        assert {nobody.get("/v1/jobs").status_code for _ in range(BURST + 2)} == {401}


class TestThrottle:
    def setup_method(self) -> None:
        self.at = 1000.0
        self.throttle = Throttle(clock=lambda: self.at)

    def failures(self, address: str, most: int = 3 * BURST) -> int:
        """How many are allowed now."""
        for count in range(most):
            try:
                self.throttle.admit(address, WRONG)
            except TooManyFailuresError:
                return count
            self.throttle.failed(address, WRONG)
        return most

    def test_allows_a_burst_and_then_one_at_a_time(self) -> None:
        assert self.failures("192.0.2.7") == BURST
        self.at += REFILL_SECONDS
        assert self.failures("192.0.2.7") == 1
        self.at += 3 * REFILL_SECONDS
        assert self.failures("192.0.2.7") == 3
        self.at += 1000 * REFILL_SECONDS
        assert self.failures("192.0.2.7") == BURST

    def test_takes_a_network_of_ipv6_for_one_address(self) -> None:
        assert self.failures("2001:db8::1") == BURST
        assert self.failures("2001:db8::ffff:2") == 0
        assert self.failures("2001:db8:0:1::1") == BURST
        assert self.failures("::ffff:192.0.2.7") == BURST
        assert self.failures("::ffff:192.0.2.8") == BURST

    def test_keeps_no_more_than_it_says(self) -> None:
        for number in range(ADDRESSES + 5):
            self.throttle.failed(f"{number}", WRONG)
        for number in range(KNOWN_KEYS + 5):
            self.throttle.succeeded(f"{number}")
        assert (len(self.throttle._full_at), len(self.throttle._known)) == (ADDRESSES, KNOWN_KEYS)

    def test_a_key_that_fails_is_known_no_more(self) -> None:
        self.throttle.succeeded(WRONG)
        assert self.failures("192.0.2.7") == BURST  # a known one would not be refused at all
