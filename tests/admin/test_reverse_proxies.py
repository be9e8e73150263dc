"""The examples in packaging/proxies, in a real nginx and a real Caddy: streams come as made, who asks is known."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from fake_supervisor import FakeSupervisor, model
from fake_upstream import Call, Serve
from web_tier import DEADLINE, WebTier, chat_request, read_until

EXAMPLES = Path(__file__).parents[2] / "packaging" / "proxies"
NAME = "llm.example.org"
CLIENT = "127.0.0.2"  # not the address of the proxy, which alone is trusted
NGINX = """
daemon off; master_process off; pid {directory}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    include {directory}/example.conf;
}}
"""
CADDY = """{{
	admin off
	auto_https disable_redirects
	skip_install_trust
	storage file_system {directory}/storage
	http_port {free}
	https_port {port}
}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def nginx(directory: Path, port: int, upstream: int, certificate: tuple[Path, Path]) -> list[str]:
    """The example, with this machine's ports and files."""
    example = (EXAMPLES / "nginx.conf").read_text()
    example = re.sub(
        r"listen (\[::\]:)?443 ssl;", lambda found: "" if found[1] else f"listen 127.0.0.1:{port} ssl;", example
    )
    example = re.sub(r"/etc/letsencrypt/\S*fullchain.pem", str(certificate[0]), example)
    example = re.sub(r"/etc/letsencrypt/\S*privkey.pem", str(certificate[1]), example)
    (directory / "example.conf").write_text(example.replace("127.0.0.1:8080", f"127.0.0.1:{upstream}"))
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
    return ["-p", str(directory), "-c", str(directory / "nginx.conf")]


def caddy(directory: Path, port: int, upstream: int, certificate: tuple[Path, Path]) -> list[str]:
    """The example, with this machine's ports and files."""
    example = (EXAMPLES / "Caddyfile").read_text().replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
    example = example.replace(f"{NAME} {{", f"{NAME} {{\n\tbind 127.0.0.1\n\ttls {certificate[0]} {certificate[1]}")
    options = CADDY.format(directory=directory, port=port, free=free_port())
    (directory / "Caddyfile").write_text(options + example)
    return ["run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tier(shared_supervisor: FakeSupervisor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebTier]:
    runtime = tmp_path_factory.mktemp("behind")
    (runtime / "control.sock").symlink_to(shared_supervisor.path)
    trusted = {"LLAMA_ROUTER_TRUSTED_PROXIES": "127.0.0.1"}
    tier = WebTier(runtime, cors_origins=f"localhost https://{NAME}", environment=trusted)
    tier.start()
    yield tier
    tier.close()


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, tier: WebTier, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """The port at which a proxy with the example's configuration answers."""
    program = shutil.which(request.param, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{request.param} is not installed: apt-get install {request.param}")
    directory = tmp_path_factory.mktemp(request.param)
    certificate = directory / "certificate.pem", directory / "key.pem"
    issued = authority.issue_cert(NAME)
    issued.cert_chain_pems[0].write_to_path(str(certificate[0]))
    issued.private_key_pem.write_to_path(str(certificate[1]))
    port = free_port()
    argv = PROXIES[request.param](directory, port, tier.address[1], certificate)
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [program, *argv], stdout=log, stderr=log, env={"HOME": str(directory), "PATH": "/usr/bin:/bin"}
        ) as process,
    ):
        try:
            wait_for_port(port, process, directory / "log")
            yield port
        finally:
            process.terminate()


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it listens; a program says by no event that it does."""
    for _ in range(500):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), DEADLINE).close()
            return
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
    raise AssertionError(log.read_text())


def secured(port: int, authority: trustme.CA) -> ssl.SSLSocket:
    """A connection to the proxy by its name."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = socket.create_connection(("127.0.0.1", port), DEADLINE, (CLIENT, 0))
    return context.wrap_socket(client, server_hostname=NAME)


def test_tokens_come_one_by_one_and_a_client_is_missed(
    proxy: int, authority: trustme.CA, supervisor: FakeSupervisor, serve: Serve
) -> None:
    supervisor.models = [model("m")]
    more, left = threading.Event(), threading.Event()

    def stream(call: Call) -> None:
        call.head()
        call.chunk(b"data: 1\n\n")
        if more.wait(DEADLINE):
            call.chunk(b"data: 2\n\n")
        if call.wait_for_hangup():
            left.set()

    serve(stream)
    with secured(proxy, authority) as client:
        asked = chat_request({"model": "m", "stream": True}, "X-Forwarded-For: 203.0.113.66\r\n")
        client.sendall(asked.replace(b"Host: x", b"Host: " + NAME.encode()))
        read_until(client, b"data: 1\n\n")  # the second is not made before it came
        more.set()
        read_until(client, b"data: 2\n\n")
    assert left.wait(DEADLINE)
    [lease] = supervisor.of("lease")
    assert lease["who"].split()[0] == CLIENT


def test_the_dashboard_knows_that_it_is_reached_by_https(proxy: int, authority: trustme.CA) -> None:
    with secured(proxy, authority) as client:
        client.sendall(f"POST /ui/logout HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 0\r\n\r\n".encode())
        head = read_until(client, b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 303"), head
    assert b"; secure;" in head.lower()


def test_a_large_body_passes(proxy: int, authority: trustme.CA, supervisor: FakeSupervisor, serve: Serve) -> None:
    supervisor.models = [model("m")]
    upstream = serve(lambda call: call.reply(b"{}"))
    with secured(proxy, authority) as client:
        asked = chat_request({"model": "m", "prompt": "x" * 3_000_000})
        client.sendall(asked.replace(b"Host: x", b"Host: " + NAME.encode()))
        assert b"200 OK" in read_until(client, b"{}")
    assert len(upstream.calls.get(timeout=DEADLINE).body) > 3_000_000
