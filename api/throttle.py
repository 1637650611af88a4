"""Failed authentications, counted by the address that they came from.

In memory, of this process alone: with several API processes, each allows as many. No more is kept than ``ADDRESSES``
and ``KNOWN_KEYS`` say, whoever asks; those that were longest not heard of are forgotten first. A guess at a key is
hopeless anyhow (``store.keys``); this keeps the guesses from the database.
"""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from threading import Lock

from api.errors import TooManyFailuresError

BURST = 10  # failures in a row; a typing error or two, in several windows
REFILL_SECONDS = 6.0  # until one more is allowed
ADDRESSES = 10_000  # about 2 MB
KNOWN_KEYS = 10_000


class Throttle:
    """A bucket of failures for each address. Thread-safe.

    A key that came in lately is not held up by what others at its address do wrong, be it a whole office or everybody
    behind a proxy. It is authenticated as ever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when all of the burst is allowed again
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def admit(self, address: str, key: str) -> None:
        """Raises ``TooManyFailuresError`` if no further failure is allowed from there now."""
        digest = _digest(key)
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
                return
            wait = self._full_at.get(_network(address), 0.0) - self._clock() - (BURST - 1) * REFILL_SECONDS
        if wait > 0:
            raise TooManyFailuresError(math.ceil(wait))

    def failed(self, address: str, key: str) -> None:
        """Counts against its address. A key that came in lately, and does no longer, is forgotten."""
        with self._lock:
            self._known.pop(_digest(key), None)
            network, at = _network(address), self._clock()
            self._full_at[network] = max(at, self._full_at.pop(network, at)) + REFILL_SECONDS
            if len(self._full_at) > ADDRESSES:
                self._full_at.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """From now on ``admit`` lets the key pass, whatever others at its address do."""
        digest = _digest(key)
        with self._lock:
            self._known[digest] = None
            if len(self._known) > KNOWN_KEYS:
                self._known.popitem(last=False)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """Of IPv6, whoever has one address has the other 2⁶⁴ in its network, too."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
        return str(IPv6Address(int(ip) >> 64 << 64))
    return str(ip)
