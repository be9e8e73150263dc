"""What people are told of where it listens."""

from __future__ import annotations

import socket

import pytest

from supervisor.core.config import parse_listen
from supervisor.listener import Listener, Listening


@pytest.mark.parametrize(
    ("address", "url", "others"),
    [
        ("127.0.0.1:8080", "https://127.0.0.1:8080", False),
        ("[::1]:8080", "https://[::1]:8080", False),
        ("0.0.0.0:8080", "https://127.0.0.1:8080", True),
        ("[::]:8080", "https://[::1]:8080", True),
        ("10.0.0.0:8080", "https://10.0.0.0:8080", False),
        ("unix:/run/0.0.0.0:80", "unix:/run/0.0.0.0:80", False),
    ],
)
def test_what_listens_everywhere_is_told_beside_the_url(address: str, url: str, others: bool) -> None:
    with socket.socket() as sock:
        inherited = Listening(sock.detach(), address, (0, 0), False)
    listener = Listener(parse_listen("127.0.0.1:0"), "https", inherited=inherited)
    assert listener.url == url
    assert listener.told == (f"{url} (listening on {address}, which others reach)" if others else url)
    listener.close()
