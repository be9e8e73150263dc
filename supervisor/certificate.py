"""The certificate that the web tier serves https with, tried out while a mistake in it costs nothing yet."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

from supervisor.preset_paths import absolute
from supervisor.yaml_source import Written, read_file

FILES: tuple[Literal["certificate", "key"], ...] = ("certificate", "key")
NO_PASSWORD = ""  # given, so that OpenSSL does not ask for one on the terminal


def with_paths(written: Written, directory: Path) -> Written:
    """What config.yaml holds, with the paths of `web.tls` made absolute."""
    web = written.get("web")
    if not isinstance(web, dict) or not isinstance(tls := web.get("tls"), dict):
        return written
    paths = {name: absolute(directory, tls[name]) for name in FILES if isinstance(tls.get(name), str) and tls[name]}
    return {**written, "web": {**web, "tls": {**tls, **paths}}}


def problem(certificate: str, key: str) -> tuple[Literal["certificate", "key"], str] | None:
    """Why no server can use these two files in PEM, after the one that is to blame."""
    content = b""
    for name, path in zip(FILES, (certificate, key), strict=True):
        try:
            content = read_file(Path(path))
        except OSError as error:
            why = error.strerror or error
            return name, f"cannot read {path}: {why}; correct the path, or let llama-router's user read it"
    if b"ENCRYPTED" in content:
        return "key", f"cannot use {key}: a password protects it; remove that: openssl pkey -in {key} -out NEW"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, NO_PASSWORD)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "key", f"cannot use {key}: it is not the key of {certificate}"
        return "certificate", f"cannot use {certificate} with {key}: they are no certificate and its key in PEM"
    return None
