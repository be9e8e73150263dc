"""https: what clients see of the certificate, and what hostile or careless ones do to the port."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, FakeUpstream
from web_tier import DEADLINE, WebTier, chat_request, read_all, read_until

from admin import tls
from supervisor import certificate

CHAT = {"model": "m", "stream": True}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write(directory: Path, authority: trustme.CA, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate for `name` and its key, each put in its place at once."""
    issued = authority.issue_cert(name)
    paths = directory / "certificate.pem", directory / "key.pem"
    for path, content in zip(paths, (issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()), strict=True):
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
    return paths


@pytest.fixture(scope="module")
def tier(
    authority: trustme.CA, shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebTier]:
    runtime = tmp_path_factory.mktemp("tls")
    (runtime / "control.sock").symlink_to(shared_supervisor.path)
    files = write(runtime, authority)
    names = ("LLAMA_ROUTER_CERTIFICATE", "LLAMA_ROUTER_CERTIFICATE_KEY")
    tier = WebTier(
        runtime,
        constants={"admin.worker.FIRST_REQUEST_SECONDS": 1.0, "admin.tls.LOOKED_AFTER_SECONDS": 0.0},
        environment=dict(zip(names, map(str, files), strict=True)),
    )
    tier.start()
    yield tier
    tier.close()


def secured(tier: WebTier, authority: trustme.CA, name: str = "localhost") -> ssl.SSLSocket:
    """A connection whose certificate was verified to be of `name`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = socket.create_connection(tier.address, DEADLINE)
    return context.wrap_socket(client, server_hostname=name, suppress_ragged_eofs=False)


def test_an_answer_ends_with_a_farewell(tier: WebTier, authority: trustme.CA) -> None:
    with secured(tier, authority) as client:
        client.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert json.loads(read_all(client).partition(b"\r\n\r\n")[2]) == {"status": "ok"}  # else SSLEOFError
        assert client.version() == "TLSv1.3"


def test_its_cookies_are_for_https_only(tier: WebTier, authority: trustme.CA) -> None:
    host = f"localhost:{tier.address[1]}"
    with secured(tier, authority) as client:
        client.sendall(f"POST /ui/logout HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
        assert b"; Secure;" in read_until(client, b"\r\n\r\n")


def test_a_stream_comes_as_it_is_made_and_its_client_is_missed(
    tier: WebTier, authority: trustme.CA, supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    supervisor.models = [model("m")]
    left = threading.Event()

    def endless(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        if call.wait_for_hangup():
            left.set()

    with FakeUpstream(endless, tmp_path / "m.sock") as upstream:
        supervisor.grants["m"] = [(1, upstream.address)]
        client = secured(tier, authority)
        client.sendall(chat_request(CHAT).replace(b"Host: x", b"Host: localhost"))
        read_until(client, b"data: 1\n\n")
        # Its farewell lies unread before the end of the connection.
        client.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        client.close()
        assert left.wait(DEADLINE)


def test_what_speaks_http_is_told_so(tier: WebTier) -> None:
    answer = tier.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"https://" in answer


@pytest.mark.parametrize(
    "sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00", b"\x16" + os.urandom(2000), b"\x80.....", b"\n"], ids=repr
)
def test_half_a_handshake_is_given_up(tier: WebTier, authority: trustme.CA, sent: bytes) -> None:
    with tier.connect() as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):
            read_all(client)  # returns: what does not shake hands in time is closed
    test_an_answer_ends_with_a_farewell(tier, authority)
    assert "Traceback" not in tier.log_text()


def test_a_renewed_certificate_is_used_by_the_next_connection(tier: WebTier, authority: trustme.CA) -> None:
    with secured(tier, authority) as first:
        write(tier.runtime_dir, authority, "renewed.example")
        secured(tier, authority, "renewed.example").close()
        first.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")  # one with the old one goes on
        read_until(first, b"}")


def test_one_that_does_not_fit_its_key_leaves_the_one_before(tier: WebTier, authority: trustme.CA) -> None:
    _, key = write(tier.runtime_dir, authority, "before.example")
    secured(tier, authority, "before.example").close()
    kept = key.read_bytes()
    write(tier.runtime_dir, authority, "localhost")
    fitting = key.read_bytes()
    for content in (kept, b"", b"no PEM"):
        key.write_bytes(content)
        secured(tier, authority, "before.example").close()
    key.unlink()
    secured(tier, authority, "before.example").close()
    assert "those before stay in use" in tier.log_text()
    told = f"{tier.runtime_dir}/certificate.pem and {key} can be used again, and are in use"
    assert told not in tier.log_text()
    for _ in range(2):
        key.write_bytes(fitting)
        secured(tier, authority, "localhost").close()
    assert tier.log_text().count(told) == 1


@pytest.mark.parametrize(
    ("spoil", "at", "words"),
    [
        (lambda files: files[0].unlink(), "certificate", "cannot read .*certificate.pem: No such file"),
        (lambda files: files[1].unlink(), "key", "cannot read .*key.pem: No such file"),
        (lambda files: (files[1].unlink(), os.mkfifo(files[1])), "key", "it is not a regular file"),
        (lambda files: files[0].write_text("garbage"), "certificate", "they are no certificate and its key in PEM"),
        (lambda files: shutil.copy(files[0], files[1]), "certificate", "they are no certificate and its key"),
        (lambda files: other_key(files[1]), "key", "it is not the key of .*certificate.pem"),
        (lambda files: encrypt(files[1]), "key", "a password protects it; .*openssl pkey -in"),
    ],
)
def test_files_that_no_server_can_use(
    tmp_path: Path, authority: trustme.CA, spoil: Callable[[tuple[Path, Path]], object], at: str, words: str
) -> None:
    files = write(tmp_path, authority)
    spoil(files)
    found = certificate.problem(*map(str, files))
    assert found is not None
    assert (found[0], re.search(words, found[1]) is not None) == (at, True), found


def test_files_that_a_server_can_use(tmp_path: Path, authority: trustme.CA) -> None:
    assert certificate.problem(*map(str, write(tmp_path, authority))) is None


def other_key(path: Path) -> None:
    path.write_bytes(trustme.CA().issue_cert("other").private_key_pem.bytes())


def encrypt(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def test_an_encrypted_key_asks_nobody(tmp_path: Path, authority: trustme.CA) -> None:
    files = write(tmp_path, authority)
    encrypt(files[1])
    with pytest.raises(OSError, match="SSL"):
        tls.Certificate(*map(str, files))


def test_a_worker_that_starts_meanwhile_has_the_one_before(tier: WebTier, authority: trustme.CA) -> None:
    certificate_file, _ = write(tier.runtime_dir, authority, "worker.example")
    secured(tier, authority, "worker.example").close()
    restart_worker(tier)  # the master has seen it by now
    kept = certificate_file.read_bytes()
    certificate_file.write_bytes(b"half")
    restart_worker(tier)
    secured(tier, authority, "worker.example").close()
    certificate_file.write_bytes(kept)


def restart_worker(tier: WebTier) -> None:
    """Kill the only one, and wait until another is ready."""
    [pid] = tier.worker_pids()
    os.kill(pid, signal.SIGKILL)
    tier.notices.append(tier.notify.recv(1024))


def test_without_a_certificate_nobody_says_that_it_is_ready(
    authority: trustme.CA, shared_supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    (tmp_path / "control.sock").symlink_to(shared_supervisor.path)
    certificate_file, key = write(tmp_path, authority)
    certificate_file.write_bytes(b"half")
    names = {"LLAMA_ROUTER_CERTIFICATE": str(certificate_file), "LLAMA_ROUTER_CERTIFICATE_KEY": str(key)}
    tier = WebTier(tmp_path, environment=names)
    tier.launch()
    try:
        assert tier.process.wait(DEADLINE) != 0
        tier.notify.setblocking(False)
        with pytest.raises(BlockingIOError):
            tier.notify.recv(1024)
    finally:
        tier.close()
