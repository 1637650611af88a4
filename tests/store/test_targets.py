"""Where webhooks may go."""

from ipaddress import ip_address

import pytest

from store import targets
from store.errors import WebhookTargetError


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "0.0.0.1", "127.0.0.1", "10.1.2.3", "172.16.5.4", "192.168.0.9", "169.254.169.254", "100.64.0.1",
            "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
            "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1",
            "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        ],
    )  # fmt: skip
    def test_of_no_single_public_host_are_refused(self, address: str) -> None:
        assert not targets.is_public(ip_address(address))

    @pytest.mark.parametrize(
        "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "172.32.0.1", "11.0.0.1"]
    )
    def test_of_public_hosts_are_fine(self, address: str) -> None:
        assert targets.is_public(ip_address(address))


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1/", "http://localhost:8000/x", "http://2130706433/", "http://0x7f.1/", "http://127.1/",
            "http://[::1]:80/", "http://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data",
        ],
    )  # fmt: skip
    def test_to_this_machine_are_refused_however_they_are_written(self, url: str) -> None:
        with pytest.raises(WebhookTargetError, match="private or reserved"):
            targets.check(url, allow_private=False)
        targets.check(url, allow_private=True)

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("ftp://8.8.8.8/", "http"),
            ("file:///etc/passwd", "http"),
            ("http:///path", "host"),
            ("http://user@8.8.8.8/", "user"),
            ("http://user:word@8.8.8.8/", "user"),
            ("http://nowhere.invalid/", "resolved"),
            (f"http://{'a' * 64}.test/", "resolved"),
        ],
    )
    def test_that_make_no_sense_are_refused(self, url: str, reason: str) -> None:
        with pytest.raises(WebhookTargetError, match=reason):
            targets.check(url, allow_private=True)

    def test_a_name_with_one_private_address_among_others_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = [(2, 1, 6, "", ("8.8.8.8", 80)), (2, 1, 6, "", ("10.0.0.1", 80))]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
        with pytest.raises(WebhookTargetError):
            targets.addresses("two.test", 80, allow_private=False)
