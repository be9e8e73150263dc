"""Behind a reverse proxy: who the client is and whether it came by https, as far as a proxy that is trusted says so.

X-Forwarded-For is a list to which each proxy adds whom it was asked by; clients may begin it as they like. So it is
read from its end, up to the first address that is no trusted proxy's. What comes over a UNIX socket was sent by a
program of this machine that may open it, and is trusted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

FOR, PROTO = "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"
SCHEMES = ("http", "https")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forwarded:
    """In front of everything else; `trusted` are addresses and networks, separated by spaces."""

    def __init__(self, inner: WSGIApplication, trusted: str) -> None:
        self._inner = inner
        self._trusted = [ipaddress.ip_network(each) for each in trusted.split()]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """PEP 3333."""
        peer = address_of(environ.get("REMOTE_ADDR", ""))
        named, scheme = environ.pop(FOR, ""), environ.pop(PROTO, "")
        if not environ.get("REMOTE_ADDR") or self._trusts(peer):
            if (client := self._client(named)) is not None:
                environ["REMOTE_ADDR"] = str(client)
            if (last := scheme.rpartition(",")[2].strip().lower()) in SCHEMES:
                environ["wsgi.url_scheme"] = last
        return self._inner(environ, start_response)

    def _client(self, named: str) -> Address | None:
        """The last address that is no trusted proxy's, or else the first; None if there is none."""
        client = None
        for word in reversed(named.split(",")):
            address = address_of(word)
            if address is None:  # what stands before it was not written by a proxy
                break
            client = address
            if not self._trusts(address):
                break
        return client

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


@lru_cache(maxsize=256)
def address_of(word: str) -> Address | None:
    """The address that "192.0.2.7", "192.0.2.7:4711", "2001:db8::7" or "[2001:db8::7]:4711" means."""
    word = word.strip()
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        address = ipaddress.ip_address(word.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
