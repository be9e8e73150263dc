"""How the web tier is started: gunicorn with the application `admin`, on a socket the supervisor listens on already."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from supervisor.core.config import Web
from supervisor.exposure import Admission

# The current directory must not stand in for any of the modules imported: neither by Python (-P) nor by gunicorn, which
# looks first where it was started, before it reads its --chdir.
DIRECTORY = "/"
PYTHON = (sys.executable, "-P")
ARGV = (
    *PYTHON,
    "-m",
    "gunicorn",
    "--config",
    "python:admin.gunicorn_conf",
    "admin.application:create_app()",
)
LISTEN_FD = 3
# The supervisor decides when running requests have had their time; gunicorn must not do so earlier.
GRACE_SECONDS = 24 * 3600


def environment(runtime: Path, state: Path, web: Web, admission: Admission) -> dict[str, str]:
    """The web tier's environment; of keys it holds hashes alone."""
    root = Path(__file__).resolve().parents[1]
    certificate = {}
    if web.tls is not None:
        certificate = {"LLAMA_ROUTER_CERTIFICATE": web.tls.certificate, "LLAMA_ROUTER_CERTIFICATE_KEY": web.tls.key}
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "LLAMA_ROUTER_RUNTIME_DIR": str(runtime),
        "LLAMA_ROUTER_STATE_DIR": str(state),
        "LLAMA_ROUTER_LISTEN_FD": str(LISTEN_FD),
        "LLAMA_ROUTER_WORKERS": str(web.workers),
        "LLAMA_ROUTER_CORS_ORIGINS": " ".join(web.cors_origins),
        "LLAMA_ROUTER_KEYLESS": "open" if admission.keyless else "closed",
        "LLAMA_ROUTER_KEY_HASHES": " ".join(each.hex() for each in admission.hashes),
        "LLAMA_ROUTER_KEY_FILE": str(admission.key_file or ""),
        "LLAMA_ROUTER_GRACE": str(GRACE_SECONDS),
        "LLAMA_ROUTER_TRUSTED_PROXIES": " ".join(web.trusted_proxies),
        **certificate,
        "GUNICORN_CMD_ARGS": "",
    }
