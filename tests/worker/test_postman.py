"""Sending to real receivers."""

import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine
from standardwebhooks import Webhook

import services
from receiver import Receiver, receiving
from steps import Steps
from store import jobs, webhooks
from store.outbox import Letter, Signal
from store.owners import LOCAL
from store.settings import Settings
from store.webhooks import DeliveryView, new_secret
from worker import postman
from worker.postman import Postman, send


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def letter(url: str) -> Letter:
    return Letter("message-7", "webhook-1", 1, url, new_secret(), '{"type":"webhook.test","é":1}'.encode())


class TestAMessage:
    def test_is_signed_as_the_standard_says(self, receiver: Receiver) -> None:
        sent = letter(receiver.url)
        assert send(sent, allow_private=True) == postman.Answer(200, None)
        [(path, headers, body)] = receiver.requests
        assert path == "/hook"
        assert headers["content-type"] == "application/json"
        assert headers["webhook-id"] == "message-7"
        assert Webhook(sent.secret).verify(body, headers) == json.loads(sent.body)
        with pytest.raises(Exception, match="No matching signature"):
            Webhook(new_secret()).verify(body, headers)

    def test_that_is_refused_says_why_in_short(self, receiver: Receiver) -> None:
        receiver.answers, receiver.body = [503], b"busy\x00\n" + b"x" * 5_000
        answer = send(letter(receiver.url), allow_private=True)
        assert answer.status == 503
        assert answer.error is not None
        assert answer.error.startswith("HTTP 503 busy  xxx")
        assert len(answer.error) <= postman.EXCERPT + len("HTTP 503 ")

    def test_follows_no_redirect(self, receiver: Receiver) -> None:
        receiver.answers, receiver.location = [302], receiver.url
        assert send(letter(receiver.url), allow_private=True).status == 302
        assert len(receiver.requests) == 1

    def test_nobody_listens(self) -> None:
        answer = send(letter(f"http://127.0.0.1:{services.free_port()}/"), allow_private=True)
        assert answer.status is None
        assert answer.error is not None
        assert answer.error.startswith("ConnectError")

    def test_that_is_answered_byte_by_byte_ends_at_the_deadline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postman, "TIMEOUT_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=_drip, args=[listening], daemon=True).start()
            began = time.monotonic()
            answer = send(letter(f"http://127.0.0.1:{listening.getsockname()[1]}/"), allow_private=True)
        assert (answer.status, answer.error) == (None, "no answer within 0.3 s")
        assert time.monotonic() - began < 2


class TestATarget:
    def test_that_is_private_is_not_connected_to(self, receiver: Receiver) -> None:
        answer = send(letter(receiver.url), allow_private=False)
        assert answer.status is None
        assert "private" in (answer.error or "")
        assert receiver.requests == []

    def test_is_resolved_once_and_keeps_its_name(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that answers with a public address at first, and then with this machine's, gains nothing."""
        asked: list[str] = []
        real = socket.getaddrinfo

        def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
            if host == "127.0.0.1":
                return real(host, *arguments, **options)
            asked.append(host)
            return real("127.0.0.1" if len(asked) == 1 else "127.0.0.99", *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        url = f"http://hooks.test:{receiver.port}/hook"
        assert send(letter(url), allow_private=True).status == 200
        assert asked == ["hooks.test"]
        assert receiver.requests[0][1]["host"] == f"hooks.test:{receiver.port}"

    def test_by_https_shows_a_certificate_of_that_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        certificate, server_side = _certified("hooks.test", tmp_path)
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: real("127.0.0.1", *rest, **options))
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(postman, "_trusted", lambda: trusting)
        with receiving(server_side) as receiver:
            right = send(letter(f"https://hooks.test:{receiver.port}/"), allow_private=True)
            wrong = send(letter(f"https://other.test:{receiver.port}/"), allow_private=True)
        assert right == postman.Answer(200, None)
        assert wrong.status is None
        assert "other.test" in (wrong.error or "")
        assert len(receiver.requests) == 1


class TestThePostman:
    def test_sends_what_is_due_and_tries_again(
        self, database: Engine, steps: Steps, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postman, "POLL_SECONDS", 0.02)
        monkeypatch.setattr("store.outbox.BACKOFF", (datetime.timedelta(0),) * 6)
        receiver.answers = [500, 200]
        hook, secret = steps.do(webhooks.create, LOCAL.owner_id, url=receiver.url, events=list(Signal), project_id=None)
        job = steps.submit()
        stop = threading.Event()
        thread = threading.Thread(target=Postman(database, Settings(webhook_private=True)).run, args=[stop])
        thread.start()
        try:
            steps.do(jobs.request_cancel, job.id)
            services.wait_until(lambda: _log(steps, hook)[0].delivered_at, 20)
        finally:
            stop.set()
            thread.join()
        [delivery] = _log(steps, hook)
        assert (delivery.event, delivery.attempts, delivery.status) == ("job.cancelled", 2, 200)
        ids = {headers["webhook-id"] for _, headers, _ in receiver.requests}
        assert ids == {delivery.id}
        assert Webhook(secret).verify(receiver.requests[1][2], receiver.requests[1][1])["data"]["job_id"] == job.id


def _log(steps: Steps, hook: str) -> tuple[DeliveryView, ...]:
    return steps.do(webhooks.deliveries, LOCAL.owner_id, hook).items


def _drip(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while True:
                connection.sendall(b"x")
                threading.Event().wait(0.05)
        except OSError:
            pass


def _certified(name: str, directory: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    at = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - datetime.timedelta(days=1))
        .not_valid_after(at + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, secret = directory / "certificate.pem", directory / "key.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return path, context
