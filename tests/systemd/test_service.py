"""The service in a booted tree: started, reloaded, stopped, and whatever of it is killed comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from installed import CONFIG, PRESETS, SERVICE, Installed

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shared() -> Iterator[Installed]:
    """One boot for all of these tests."""
    with Installed() as machine:
        machine.install()
        yield machine


@pytest.fixture
def machine(shared: Installed) -> Iterator[Installed]:
    """With the service running, and after the test none of its presets but the first."""
    shared.run("systemctl", "reset-failed")
    shared.run("systemctl", "start", SERVICE)
    yield shared
    shared.run("sh", "-c", f"cd {PRESETS} && find -type f ! -name smollm2.yaml -delete")


def test_it_starts_answers_and_tells_what_it_does(machine: Installed) -> None:
    assert 'Status: "0 ready, 0 starting, 0 backoff, 0 failed"' in machine.run("systemctl", "status", SERVICE)
    assert machine.chat()
    ready = 'Status: "1 ready, 0 starting, 0 backoff, 0 failed"'
    machine.eventually(lambda: ready in machine.run("systemctl", "status", SERVICE), "systemd is told of it")
    users = machine.run("ps", "-o", "user=", "-p", ",".join(map(str, machine.processes(SERVICE)))).split()
    assert set(users) == {"llama-r+"} or set(users) == {"llama-router"}


def test_a_reload_waits_until_it_is_done(machine: Installed) -> None:
    machine.preset("second", model="/srv/models/smollm2.gguf")
    machine.run("systemctl", "reload", SERVICE)
    assert "second" in machine.models()


def test_a_reload_of_errors_fails_and_all_goes_on(machine: Installed) -> None:
    assert machine.chat()
    before, since = machine.parts(), machine.cursor()
    machine.write(f"{PRESETS}/bad.yaml", "models:\n  bad:\n    model: /srv/models/smollm2.gguf\n    contxt: 3\n")
    assert machine.attempt("systemctl", "reload", SERVICE).returncode != 0
    machine.heard(since, lambda entry: "bad.yaml:4: models.bad.contxt: " in entry["MESSAGE"], _SYSTEMD_UNIT=SERVICE)
    assert machine.show(SERVICE, "ActiveState") == "active"
    assert machine.parts() == before
    assert machine.chat()
    machine.run("rm", f"{PRESETS}/bad.yaml")
    machine.run("systemctl", "reload", SERVICE)


@pytest.mark.parametrize("name", ["supervisor", "guard", "forkserver", "web", "worker", "model"])
def test_what_is_killed_comes_back(machine: Installed, name: str) -> None:
    assert machine.chat()
    before, since = machine.parts(), machine.cursor()
    assert len(set(before.values())) == 6
    machine.run("kill", "-KILL", str(before[name]))
    if name == "supervisor":
        machine.heard(since, lambda entry: entry["MESSAGE"].startswith("Started "), UNIT=SERVICE)
    machine.eventually(lambda: machine.parts().get(name, before[name]) != before[name], f"there is another {name}")
    assert machine.chat()
    after = machine.parts()
    assert after.keys() == before.keys()
    lost = {part for part in before if after[part] != before[part]}
    below = {"supervisor": set(before), "web": {"web", "worker"}}
    assert lost == below.get(name, {name})
    old = {before[part] for part in lost}
    machine.eventually(lambda: not old & machine.processes(SERVICE).keys(), "the old ones are gone")
    assert machine.show(SERVICE, "ActiveState") == "active"


def test_a_supervisor_that_hangs_is_killed_by_the_watchdog(machine: Installed) -> None:
    with machine.drop_in(SERVICE, "Service", WatchdogSec="2s"):
        machine.run("systemctl", "restart", SERVICE)
        assert machine.chat()
        before, since = machine.parts(), machine.cursor()
        machine.run("kill", "-STOP", str(before["supervisor"]))
        machine.heard(since, lambda entry: "Watchdog timeout" in entry["MESSAGE"], UNIT=SERVICE)
        machine.heard(since, lambda entry: entry["MESSAGE"].startswith("Started "), UNIT=SERVICE)
        assert machine.chat()
        assert not set(before.values()) & machine.processes(SERVICE).keys()
    machine.run("systemctl", "restart", SERVICE)


def test_a_stop_leaves_nothing(machine: Installed) -> None:
    assert machine.chat()
    group = machine.show(SERVICE, "ControlGroup")
    machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert not machine.attempt("pgrep", "-u", "llama-router").stdout
    assert not (machine.root / f"sys/fs/cgroup{group}").exists()
    assert not (machine.root / "run/llama-router").exists()


def test_a_stop_takes_the_time_that_a_model_may_take(machine: Installed) -> None:
    """Longer than TimeoutStopSec, which is extended for as long as the supervisor is about it."""
    deaf = "import signal, socket; signal.signal(signal.SIGTERM, signal.SIG_IGN); s = socket.socket(socket.AF_UNIX)"
    deaf += "; s.bind('{socket}'); s.listen(); print('up', flush=True)\nwhile True: s.accept()"
    keys = {"backend": "command", "command": ["/usr/bin/python3", "-c", deaf], "ready": "tcp"}
    machine.preset("deaf", **keys, stop_timeout="5s")
    machine.run("systemctl", "reload", SERVICE)
    machine.run("llama-router", "load", "deaf")
    with machine.drop_in(SERVICE, "Service", TimeoutStopSec="2s"):
        since = machine.cursor()
        machine.run("systemctl", "stop", SERVICE)
    assert machine.show(SERVICE, "Result") == "success"
    assert [each for each in machine.journal(since) if "deaf: still running after SIGTERM" in each["MESSAGE"]]


def test_wrong_configuration_is_final(machine: Installed) -> None:
    good = (machine.root / CONFIG.lstrip("/")).read_text()
    machine.write(CONFIG, "lisen: nowhere\n")
    since = machine.cursor()
    assert machine.attempt("systemctl", "restart", SERVICE).returncode != 0
    machine.write(CONFIG, good)
    assert machine.show(SERVICE, "ActiveState") == "failed"
    assert machine.show(SERVICE, "NRestarts") == "0"
    assert [each for each in machine.journal(since) if f"{CONFIG}:1: lisen: " in each["MESSAGE"]]


def test_dashboards_save_presets(machine: Installed) -> None:
    token = re.search(r"token=(\S+)", machine.run("llama-router", "passwd", "--link"))
    assert token is not None
    machine.curl("--cookie-jar", "/tmp/jar", "--data", f"token={token[1]}", "/ui/login")
    text = "models: {saved: {model: /srv/models/smollm2.gguf}}\n"
    body = json.dumps({"file": "saved.yaml", "text": text, "base": None})
    headers = ("--header", "Accept: application/json", "--header", "Content-Type: application/json")
    answer = json.loads(machine.curl("--cookie", "/tmp/jar", *headers, "--data", body, "/ui/presets/save"))
    assert answer["outcome"] == "saved", answer
    assert machine.run("stat", "--format=%U %a", f"{PRESETS}/saved.yaml").split() == ["llama-router", "600"]
    assert "saved" in machine.models()


def test_it_is_hardened(machine: Installed) -> None:
    """The threshold is in tenths of what `systemd-analyze security` shows."""
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=20", SERVICE)


def test_what_model_servers_may_do(machine: Installed) -> None:
    script = f"{machine.inside}/what_is_allowed.py"
    command = ["/usr/bin/python3", script, "{socket}"]
    machine.preset("tries", backend="command", command=command, restart={"policy": "no"})
    machine.run("systemctl", "reload", SERVICE)
    assert machine.attempt("llama-router", "load", "tries").returncode == 1
    lines = machine.run("llama-router", "logs", "tries")
    assert "that is all" in lines
    assert set(re.findall(r"allowed: (.*)", lines)) == {
        "presets",
        "its own control group",
        "how much memory there is",
        "a thread's processors",
        "a function of Python's that C calls",
    }
    assert len(re.findall(r"refused: ", lines)) == 11


def test_the_unit_says_nothing_that_systemd_does_not_know(machine: Installed) -> None:
    for unit in (SERVICE, "llama-router.socket"):
        checked = machine.attempt("systemd-analyze", "verify", f"/etc/systemd/system/{unit}")
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
