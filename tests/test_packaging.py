"""What the Debian package is made of: the manual page, what goes to /etc, the scripts. tests/systemd installs it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from supervisor.cli import program

ROOT = Path(__file__).resolve().parents[1]
DEB = ROOT / "packaging" / "deb"
SCRIPTS = [DEB / "build.sh", DEB / "debian/tidy.sh", *DEB.glob("debian/llama-router.p*")]


def commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


@pytest.fixture(scope="module")
def manual() -> str:
    """The page in roff."""
    call = (sys.executable, DEB / "manual.py", "1700000000")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(call, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(("words", "command"), list(commands(program, "llama-router")))
def test_the_manual_has_every_command_with_its_options(manual: str, words: str, command: click.Command) -> None:
    part = re.search(rf"^\.SS {re.escape(words.replace('-', chr(92) + '-'))} .*?(?=^\.S[SH] )", manual, re.M | re.S)
    assert part is not None
    common = {option for parameter in program.params for option in parameter.opts}
    options = {option for each in command.params if isinstance(each, click.Option) for option in each.opts}
    shown = part[0].replace("\\-", "-")
    assert {option for option in options - common if option not in shown} == set()


def test_the_manual_has_a_date_and_every_exit_code(manual: str) -> None:
    assert '"2023-11-14"' in manual.splitlines()[0]
    status = manual.partition(".SH EXIT STATUS")[2]
    assert {"0", "1", "78", "130"} <= set(re.findall(r"^(\d+) ", status, re.M)) | set(re.findall(r" {2}(\d+) ", status))


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff: apt-get install groff-base")
def test_groff_takes_the_manual_without_a_warning(manual: str) -> None:
    call = ("groff", "-man", "-Tutf8", "-ww", "-z")
    assert subprocess.run(call, input=manual, capture_output=True, text=True, timeout=60).stderr == ""


def test_a_fresh_configuration_is_right_and_has_no_models(tmp_path: Path) -> None:
    shutil.copytree(DEB / "etc", tmp_path / "etc")
    environment = {"LLAMA_ROUTER_RUNTIME_DIR": str(tmp_path)}
    done = CliRunner(env=environment).invoke(program, ["check", "--config", str(tmp_path / "etc/config.yaml")])
    assert (done.exit_code, done.output.splitlines()[0][:9]) == (0, "0 models ")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_can_read_the_scripts(script: Path) -> None:
    done = subprocess.run(("sh", "-n", script), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
