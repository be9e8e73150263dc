"""`web.tls` in config.yaml: what `check` says of it, and what `run` and `status` make of it."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import trustme
from click.testing import CliRunner
from harness import Supervisor

from supervisor.cli import program


def test_it_is_served() -> None:
    authority = trustme.CA()
    with Supervisor(listen="127.0.0.1:0") as supervisor:
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(supervisor.directory / "certificate.pem"))
        issued.private_key_pem.write_to_path(str(supervisor.directory / "key.pem"))
        tls = "web: {workers: 1, tls: {certificate: certificate.pem, key: key.pem}}"
        supervisor.config.write_text(supervisor.config.read_text().replace("web: {workers: 1}", tls))
        supervisor.start(until="READY=1")
        url = supervisor.call("status")["status"]["url"]
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with urllib.request.urlopen(f"{url}/health", context=context, timeout=20) as answer:
            assert answer.status == 200


def test_check_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "presets.d").mkdir()
    config = tmp_path / "config.yaml"
    config.write_text("web:\n  tls:\n    certificate: gone.pem\n    key: gone.key\n")
    result = CliRunner().invoke(program, ["check", "--config", str(config)])
    assert result.exit_code == 78
    assert f"{config}:3: web.tls.certificate: cannot read {tmp_path}/gone.pem: No such file" in result.stderr
