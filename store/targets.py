"""Where webhooks may go: to no address that this server reaches and the world does not, unless that is allowed.

A name is resolved here and nowhere else; whoever connects does so to an address that came out of here. Were it resolved
again, whoever owns the name could answer differently the second time.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from store.errors import WebhookTargetError

NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
PORTS = {"http": 80, "https": 443}


def check(url: str, allow_private: bool) -> None:
    """Raises ``WebhookTargetError``."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise WebhookTargetError("expected http:// or https://, and a host")
    if parts.username is not None or parts.password is not None:
        raise WebhookTargetError("a URL with a user or password is refused: the signature says who sends")
    addresses(parts.hostname, parts.port or PORTS[parts.scheme], allow_private)


def addresses(host: str, port: int, allow_private: bool) -> list[str]:
    """What ``host`` resolves to now, at least one. Raises ``WebhookTargetError``, also where only one of several is
    refused: such a name is up to something."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebhookTargetError(f"the host {host!r} cannot be resolved") from error
    resolved = list(dict.fromkeys(str(each[4][0]) for each in found))
    if not allow_private and not all(is_public(ip_address(each)) for each in resolved):
        raise WebhookTargetError(f"the host {host!r} is at a private or reserved address, to which nothing is sent")
    return resolved


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is a single host's, anywhere in the world."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        if address in NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.sixtofour is not None or address.teredo is not None:
            return False  # the last two are tunnels, by which any IPv4 address can be named
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
