"""The Debian package in a booted Debian: what it brings and starts, what upgrades keep, and what is left in the end."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_package import ENVIRONMENT, LATER, Debian, built, later
from installed import CONFIG, MODEL, PRESETS, SERVICE
from served import gguf

QEMU = shutil.which("qemu-x86_64")

pytestmark = pytest.mark.timeout(900)

# What dpkg, apt, systemd and users' accounts write of every package. The user itself stays too.
OF_THE_SYSTEM = (
    *("/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-", "/etc/subgid-", "/etc/subuid-"),
    *("/var/cache/", "/var/lib/apt/", "/var/lib/dpkg/", "/var/lib/systemd/", "/var/log/apt/", "/var/log/journal/"),
)


@pytest.fixture(scope="module")
def package() -> Path:
    return built()


@pytest.fixture(scope="module")
def debian(package: Path) -> Iterator[Debian]:
    """With the package installed, and nothing else done. Tests leave it as it is, but for the model they write."""
    with Debian(package) as machine:
        machine.install(package)
        yield machine


def test_it_runs_once_it_is_installed(debian: Debian) -> None:
    assert debian.run("systemctl", "is-enabled", SERVICE).strip() == "enabled"
    assert debian.show(SERVICE, "SubState") == "running"
    assert debian.show(SERVICE, "NRestarts") == "0"
    assert json.loads(debian.get("/v1/models"))["data"] == []
    status = json.loads(debian.run("llama-router", "status", "--json"))
    assert (status["state"], status["listen"], status["config"]) == ("running", "127.0.0.1:8080", CONFIG)
    assert debian.run("systemctl", "--failed", "--quiet") == ""


def test_the_socket_is_left_to_the_administrator(debian: Debian) -> None:
    assert debian.attempt("systemctl", "is-enabled", "llama-router.socket").stdout.strip() == "disabled"
    assert debian.show("llama-router.socket", "ActiveState") == "inactive"


def test_the_dashboard_says_how_to_add_a_model(debian: Debian) -> None:
    token = debian.run("llama-router", "passwd", "--link").partition("token=")[2].split()[0]
    debian.get("/ui/login", "--cookie-jar", "/tmp/cookies", "--data", f"token={token}")
    page = debian.get("/", "--cookie", "/tmp/cookies")
    assert "No models yet" in page and "/etc/llama-router" in page


def test_its_files_are_as_they_were_packed(debian: Debian) -> None:
    assert debian.run("dpkg", "--verify", "llama-router") == ""


def test_its_units_are_not_hidden_by_others(debian: Debian) -> None:
    refused = debian.attempt("llama-router", "install-units")
    assert refused.returncode == 73
    assert "a package's is there, /usr/lib/systemd/system/llama-router.service" in refused.stderr
    assert debian.attempt("test", "-e", "/etc/systemd/system/llama-router.service").returncode != 0


def test_who_may_change_the_configuration(debian: Debian) -> None:
    form = ("stat", "--format=%U:%G %a")
    assert debian.run(*form, CONFIG).strip() == "root:root 644"
    assert debian.run(*form, PRESETS).strip() == "llama-router:llama-router 750"
    assert debian.run(*form, "/var/lib/llama-router/models").strip() == "llama-router:llama-router 755"


def test_shells_complete_it(debian: Debian) -> None:
    script = """
        source /usr/share/bash-completion/bash_completion; _completion_loader llama-router
        COMP_WORDS=(llama-router stat); COMP_CWORD=1; _llama_router_completion llama-router; echo "${COMPREPLY[@]}"
    """
    assert debian.run("bash", "-c", script).split() == ["status"]
    for file in ("zsh/vendor-completions/_llama-router", "fish/vendor_completions.d/llama-router.fish"):
        assert "_LLAMA_ROUTER_COMPLETE" in debian.run("cat", f"/usr/share/{file}")


def test_the_example_is_a_preset(debian: Debian) -> None:
    text = debian.run("sed", "--quiet", "/^# models:/,$s/^# //p", f"{PRESETS}/example.yaml")
    debian.run("mkdir", "--parents", "/tmp/example/presets.d")
    debian.run(
        "tee", "/tmp/example/presets.d/example.yaml", input=text.replace("/srv/models/Qwen3-8B-Q4_K_M.gguf", MODEL)
    )
    debian.run("cp", CONFIG, "/tmp/example")
    checked = debian.run("llama-router", "check", "--config", "/tmp/example/config.yaml", "--json")
    assert json.loads(checked)["models"] == ["qwen3-8b"]


def test_a_model_answers_with_what_this_cpu_can_do(debian: Debian) -> None:
    debian.preset("smollm2", model=MODEL, context=512, threads=2)
    answer = json.loads(debian.chat("smollm2", max_tokens=8))
    assert answer["choices"][0]["message"]["content"]
    assert "loaded CPU backend from /usr/lib/llama-router/" in debian.run("llama-router", "logs", "smollm2")


@pytest.mark.skipif(shutil.which("lintian") is None, reason="there is no lintian: apt-get install lintian")
def test_lintian_finds_nothing_else(package: Path) -> None:
    done = subprocess.run(("lintian", "--allow-root", package), capture_output=True, text=True)
    assert done.stdout == ""


@pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64: apt-get install qemu-user")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are CPUs of x86-64")
@pytest.mark.parametrize(("cpu", "library"), [("Nehalem", "sse42"), ("Haswell", "haswell")])
def test_older_cpus_can_run_it(package: Path, tmp_path: Path, cpu: str, library: str) -> None:
    subprocess.run(("dpkg", "--extract", package, tmp_path), check=True)
    [packages] = (tmp_path / ENVIRONMENT).glob("lib/python3.*/site-packages")
    script = "from supervisor.model_server_load import load; import sys; m = load({'model': sys.argv[1]}, print)[0]; "
    script += "print(m.llama.create_completion('The capital of France is', max_tokens=2, temperature=0))"
    # With nothing of this machine's environment: OPENBLAS_CORETYPE, for one, names a CPU.
    done = subprocess.run(
        (str(QEMU), "-cpu", cpu, "/usr/bin/python3", "-c", script, gguf()),
        env={"PATH": os.defpath, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, "Paris" in done.stdout) == (0, True), done.stderr
    assert f"libggml-cpu-{library}.so" in done.stderr


def test_an_upgrade_keeps_edits_and_breaks_no_stream(package: Path, tmp_path: Path) -> None:
    newer = later(package, tmp_path)
    with Debian(package, newer) as machine:
        machine.install(package)
        machine.run("sed", "--in-place", "$a max_models: 2", CONFIG)
        machine.preset("smollm2", model=MODEL, context=1024, threads=1)
        machine.run("sh", "-c", f"echo '# mine' >> {PRESETS}/example.yaml")
        body = {"model": "smollm2", "messages": [{"role": "user", "content": "Tell me of the sea."}], "stream": True}
        machine.chat("smollm2", max_tokens=1)
        options = ("--silent", "--no-buffer", "--header", "Content-Type: application/json")
        data = json.dumps({**body, "max_tokens": 400, "temperature": 0})
        with machine.start("curl", *options, "--data", data, "http://127.0.0.1:8080/v1/chat/completions") as stream:
            assert stream.stdout is not None and stream.stdout.readline().startswith("data: ")
            processes = machine.show(SERVICE, "MainPID"), pid_of("smollm2", machine)
            machine.install(newer)
            assert stream.stdout.read().endswith("data: [DONE]\n\n")
        assert json.loads(machine.run("llama-router", "status", "--json"))["version"] == LATER
        assert (machine.show(SERVICE, "MainPID"), pid_of("smollm2", machine)) == processes
        assert json.loads(machine.chat("smollm2", max_tokens=4))["choices"][0]["message"]["content"]
        assert machine.run("tail", "--lines=1", CONFIG) == "max_models: 2\n"
        assert machine.run("tail", "--lines=1", f"{PRESETS}/example.yaml") == "# mine\n"
        assert "later version" in machine.run("cat", f"{CONFIG}.dpkg-dist")
        assert machine.show(SERVICE, "NRestarts") == "0"


def pid_of(model: str, machine: Debian) -> int:
    """Of the model's server."""
    pid: int = json.loads(machine.run("llama-router", "status", model, "--json"))["pid"]
    return pid


def test_removed_it_keeps_what_purge_takes_away(package: Path) -> None:
    with Debian(package) as machine:
        before = machine.files()
        machine.install(package)
        machine.preset("smollm2", model=MODEL, context=512)
        machine.chat("smollm2", max_tokens=1)
        machine.run("systemctl", "stop", SERVICE)
        machine.run("systemctl", "enable", "--now", "llama-router.socket")
        machine.get("/health")
        machine.apt("remove", "llama-router")
        assert machine.show(SERVICE, "ActiveState") == machine.show("llama-router.socket", "ActiveState") == "inactive"
        kept = machine.files() - before
        assert {CONFIG, f"{PRESETS}/smollm2.yaml", "/var/lib/llama-router/models"} <= kept
        assert not [path for path in kept if path.startswith("/usr/")]

        machine.apt("purge", "llama-router")
        after = machine.files()
        assert [path for path in sorted(after - before) if not path.startswith(OF_THE_SYSTEM)] == []
        assert MODEL in after and before - after == set()
        assert machine.attempt("systemctl", "status", SERVICE).returncode == 4  # no such unit


def test_purge_spares_what_is_mounted(package: Path) -> None:
    with Debian(package) as machine:
        machine.install(package)
        machine.run("mkdir", "/srv/mine")
        machine.run("touch", "/srv/mine/big.gguf")
        machine.run("mount", "--bind", "/srv/mine", "/var/lib/llama-router/models")
        assert "stays" in machine.attempt("sh", "-c", "apt-get --yes purge llama-router 2>&1").stdout
        assert machine.run("ls", "/srv/mine") == "big.gguf\n"
