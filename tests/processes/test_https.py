"""`web.tls` in config.yaml: what `check` says of it, and what `run` and `status` make of it."""

from __future__ import annotations

import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from harness import ROOT, Supervisor
from observed import DEADLINE

from supervisor.cli import program


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secured(authority: trustme.CA) -> Iterator[Supervisor]:
    """A supervisor that serves https."""
    with Supervisor(listen="127.0.0.1:0") as supervisor:
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(supervisor.directory / "certificate.pem"))
        issued.private_key_pem.write_to_path(str(supervisor.directory / "key.pem"))
        tls = "web: {workers: 1, tls: {certificate: certificate.pem, key: key.pem}}"
        supervisor.config.write_text(supervisor.config.read_text().replace("web: {workers: 1}", tls))
        yield supervisor.start(until="READY=1")


def health(supervisor: Supervisor, authority: trustme.CA) -> int:
    """The status of a request on a connection of its own."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with urllib.request.urlopen(f"{supervisor.status()['url']}/health", context=context, timeout=DEADLINE) as answer:
        status: int = answer.status
        return status


def test_it_is_served(secured: Supervisor, authority: trustme.CA) -> None:
    assert secured.status()["url"].startswith("https://127.0.0.1:")
    assert health(secured, authority) == 200


def test_a_reexec_with_a_certificate_that_cannot_be_used_is_refused(secured: Supervisor, authority: trustme.CA) -> None:
    argv = [sys.executable, "-m", "supervisor.cli", "--runtime-dir", str(secured.runtime), "reexec"]

    def reexec() -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=3 * DEADLINE, check=False)

    web, file = secured.status()["web"], secured.directory / "certificate.pem"
    good = file.read_bytes()
    file.write_bytes(b"half written")
    told = reexec()
    assert (told.returncode, told.stdout) == (1, "")
    why = f"cannot use {file} with {secured.directory}/key.pem: they are no certificate and its key in PEM"
    assert told.stderr == f"llama-router: cannot reexec: {why}\n"
    status = secured.status()
    assert (status["web"]["pid"], status["web_before"]) == (web["pid"], [])
    assert health(secured, authority) == 200
    file.write_bytes(good)
    assert reexec().returncode == 0
    assert secured.status()["web"]["pid"] != web["pid"]
    assert health(secured, authority) == 200


def test_check_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "presets.d").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("web:\n  tls:\n    certificate: gone.pem\n    key: gone.key\n")
    result = CliRunner().invoke(program, ["check", "--config", str(config)])
    assert result.exit_code == 78
    assert f"{config}:3: web.tls.certificate: cannot read {tmp_path}/gone.pem: No such file" in result.stderr
