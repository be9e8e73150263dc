"""Every rule of config.yaml's keys, one row each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from supervisor.core.config import Config, Listen, Log, Tls, Web, parse_listen
from supervisor.core.fields import complaints


def problems(**keys: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(keys)
    return {".".join(map(str, path)): message for path, message in complaints(Config, caught.value)}


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Config().model_dump() == {
        "listen": "127.0.0.1:8080",
        "presets": "presets.d",
        "models_dir": "/var/lib/llama-router/models",
        "max_models": 4,
        "memory": {},
        "autoload": True,
        "fallback": None,
        "keep_vocabularies": 256 * 2**20,
        "max_wait": 10.0,
        "queue_limit": 512,
        "web": {
            "workers": "auto",
            "cors_origins": ("localhost",),
            "edit_commands": False,
            "tls": None,
            "trusted_proxies": (),
            "api_key_file": None,
            "allow_anyone": False,
        },
        "log": {"journal": "auto", "directory": None, "keep": 50 * 2**20},
    }


def test_a_config_is_equal_to_what_its_dump_reads_as() -> None:
    config = Config.model_validate(
        {"listen": "[::1]:1", "memory": {"host": "1G", "gpu0": "auto"}, "web": {"workers": 2}}
    )
    assert Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("written", "listen", "text"),
    [
        ("127.0.0.1:8080", Listen("127.0.0.1", 8080), "127.0.0.1:8080"),
        ("0.0.0.0:0", Listen("0.0.0.0", 0), "0.0.0.0:0"),
        ("localhost:65535", Listen("localhost", 65535), "localhost:65535"),
        ("my-host.example:80", Listen("my-host.example", 80), "my-host.example:80"),
        ("[::1]:80", Listen("::1", 80), "[::1]:80"),
        ("[fe80::1%eth0]:80", Listen("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("unix:/run/web.sock", Listen(path="/run/web.sock"), "unix:/run/web.sock"),
        ("/run/a b.sock", Listen(path="/run/a b.sock"), "unix:/run/a b.sock"),
        ("/" + "x" * 106, Listen(path="/" + "x" * 106), "unix:/" + "x" * 106),
    ],
)
def test_addresses_that_are_read(written: str, listen: Listen, text: str) -> None:
    assert parse_listen(written) == listen
    assert str(listen) == text
    assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    "written",
    [
        *("", ":80", "8080", 8080, True, None, "::1:80", "[::1]", "[1]:2", "[::1]:", "1.2.3:80", "1.2.3.256:80"),
        *("h:65536", "h:-1", "h:1x", "h: 1", "a b:1", "h/:1", "-h:1", "http://h:1", "h:1\n", "h:٣"),
        *("unix:", "unix:run", "/run/", "/a\0b", "/a\nb", "/" + "x" * 107, "/" + "é" * 60),
    ],
    ids=repr,
)
def test_addresses_that_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="cannot listen on"):
        parse_listen(written)


@given(st.text())
def test_any_address_is_read_or_refused(written: str) -> None:
    try:
        listen = parse_listen(written)
    except ValueError as error:
        assert "cannot listen on" in str(error)
    else:
        assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("autoload", "on", True),
        ("autoload", "no", False),
        ("max_models", 0, 0),
        ("memory", {"host": "24GiB", "gpu0": "auto"}, {"host": 24 * 2**30, "gpu0": "auto"}),
        ("memory", None, {}),
        ("web", {"workers": 3}, Web(workers=3)),
        ("web", {"cors_origins": None}, Web(cors_origins=())),
        ("web", {"tls": {"certificate": "c", "key": "k"}}, Web(tls=Tls(certificate="c", key="k"))),
        ("web", {"trusted_proxies": ["10.0.0.0/8", "::1"]}, Web(trusted_proxies=("10.0.0.0/8", "::1/128"))),
        *[
            ("web", {"cors_origins": [word]}, Web(cors_origins=(word,)))
            for word in (
                "*",
                "localhost",
                "https://a.example",
                "http://[::1]:80",
                "app://obsidian.md",
                "tauri://localhost",
            )
        ],
        ("web", None, Web()),
        ("log", {"journal": "off", "keep": "1G"}, Log(journal=False, keep=2**30)),
        ("fallback", "qwen", "qwen"),
        ("max_wait", "1min", 60.0),
    ],
)
def test_keys_that_are_read(key: str, written: object, value: object) -> None:
    assert getattr(Config.model_validate({key: written}), key) == value


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("listen", {"listen": 8080}, "write 127.0.0.1:8080, [::1]:8080 or unix:/run/llama-router/web.sock"),
        ("presets", {"presets": None}, "cannot read null as text"),
        ("presets", {"presets": ""}, "cannot be empty"),
        ("max_models", {"max_models": True}, "cannot read true as a whole number"),
        ("max_models", {"max_models": -1}, "it must be 0 or more"),
        ("queue_limit", {"queue_limit": -1}, "it must be 0 or more"),
        ("memory.host", {"memory": {"host": "much"}}, "write 512M, 6GiB or 24GB"),
        ("memory.cpu", {"memory": {"cpu": "1G"}}, "write host, gpu0"),
        ("autoload", {"autoload": 1}, "write true or false"),
        ("fallback", {"fallback": "#"}, "no '#'"),
        ("max_wait", {"max_wait": "never"}, "cannot read 'never' as a duration"),
        ("web.workers", {"web": {"workers": 0}}, "write 1 to 256, or auto"),
        ("web.workers", {"web": {"workers": True}}, "cannot read true as a whole number"),
        ("web.worker", {"web": {"worker": 1}}, "did you mean 'workers'?"),
        ("web.cors_origins", {"web": {"cors_origins": "*"}}, "write [a, b]"),
        *[
            ("web.cors_origins.0", {"web": {"cors_origins": [word]}}, "write one such as https://chat.example.org")
            for word in ("", "chat.example.org", "https://a/", "https://a b", "https://*.a", "https://u@a", "null", 1)
        ],
        *[
            ("web.trusted_proxies.0", {"web": {"trusted_proxies": [word]}}, "write its address or network, such as")
            for word in ("", "localhost", "10.0.0.1/8", "10.0.0.0/33", 1, None, "unix")
        ],
        ("web.tls.key", {"web": {"tls": {"certificate": "c"}}}, "cannot do without 'key': write it too"),
        ("web.tls.certificate", {"web": {"tls": {"certificate": "", "key": "k"}}}, "empty"),
        (
            "web.tls.cert",
            {"web": {"tls": {"certificate": "c", "key": "k", "cert": "c"}}},
            "known are certificate, key",
        ),
        ("log.journal", {"log": {"journal": "maybe"}}, "cannot read 'maybe': write true, false or auto"),
        ("log", {"log": "x"}, "as a mapping"),
        ("log.keep", {"log": {"keep": "100K"}}, "write 1MiB or more"),
        ("listn", {"listn": 1}, "did you mean 'listen'?"),
    ],
)
def test_keys_that_are_refused(path: str, keys: dict[str, Any], message: str) -> None:
    found = problems(**keys)
    assert list(found) == [path]
    assert message in found[path]
