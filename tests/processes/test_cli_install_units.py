"""`llama-router install-units`: which files it writes, that they start this installation, and whose it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import unit_files
from supervisor.errors import CannotCreate

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(sys.executable).parent / "llama-router"


def install(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-m", "supervisor.cli", "install-units", *options)
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def written(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_the_system_s(tmp_path: Path) -> None:
    done = install("--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    files = written(tmp_path)
    assert files.keys() == {
        "etc/systemd/system/llama-router.service",
        "etc/systemd/system/llama-router.socket",
        "etc/sysusers.d/llama-router.conf",
        "etc/tmpfiles.d/llama-router.conf",
    }
    service = files["etc/systemd/system/llama-router.service"]
    assert f"ExecStart={SCRIPT} run --config /etc/llama-router/config.yaml\n" in service
    assert f"ExecReload={SCRIPT} reload\n" in service
    assert done.stdout.count("wrote ") == 4
    assert "systemctl enable --now llama-router" in done.stderr


def test_a_user_s(tmp_path: Path) -> None:
    for environment in ({"XDG_CONFIG_HOME": str(tmp_path)}, {"XDG_CONFIG_HOME": "", "HOME": str(tmp_path / "home")}):
        done = install("--user", **environment)
        assert done.returncode == 0
        assert "write ~/.config/llama-router/config.yaml" in done.stderr
    names = {"systemd/user/llama-router.service", "systemd/user/llama-router.socket"}
    assert written(tmp_path).keys() == names | {f"home/.config/{name}" for name in names}
    unit = (tmp_path / "systemd/user/llama-router.service").read_text()
    assert f"ExecStart={SCRIPT} run\n" in unit
    assert "User=" not in unit


@pytest.mark.parametrize("place", ["lib/systemd/system", "usr/lib/systemd/system"])
def test_a_package_s_are_not_hidden(tmp_path: Path, place: str) -> None:
    packaged = tmp_path / place / "llama-router.service"
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    for options in ((), ("--force",)):
        refused = install("--root", str(tmp_path), *options)
        assert refused.returncode == 73
        assert f"cannot write units: a package's is there, {packaged}, which they would hide; " in refused.stderr
        assert "systemctl edit llama-router" in refused.stderr
    assert not (tmp_path / "etc").exists()
    assert install("--root", str(tmp_path), "--print").returncode == 0
    assert install("--user", XDG_CONFIG_HOME=str(tmp_path)).returncode == 0


def test_printing_writes_nothing(tmp_path: Path) -> None:
    done = install("--root", str(tmp_path), "--print")
    assert done.returncode == 0
    assert f"# {tmp_path}/etc/systemd/system/llama-router.socket\n" in done.stdout
    assert written(tmp_path) == {}


def test_what_was_edited_is_left_alone(tmp_path: Path) -> None:
    assert install("--root", str(tmp_path)).returncode == 0
    before = written(tmp_path)
    again = install("--root", str(tmp_path))
    assert (again.returncode, again.stdout.count("is up to date")) == (0, 4)
    socket = tmp_path / "etc/systemd/system/llama-router.socket"
    socket.write_text(socket.read_text().replace("8080", "80"))
    (tmp_path / "etc/sysusers.d/llama-router.conf").unlink()
    refused = install("--root", str(tmp_path))
    assert refused.returncode == 73
    assert f"cannot write {socket}: edited by somebody" in refused.stderr
    assert "80\n" in socket.read_text()
    assert len(written(tmp_path)) == 3, "all or none"
    assert install("--root", str(tmp_path), "--force").returncode == 0
    assert written(tmp_path) == before


def test_what_an_older_version_wrote_is_replaced(tmp_path: Path) -> None:
    [old] = unit_files.unit_files({"llama-router.socket": Path("a")}, tmp_path, Path("/old/llama-router"))
    above = "# an older version's\n"
    old.path.write_text(f"{above}{unit_files._MARK}{unit_files._checksum(above)}\n")
    files = unit_files.unit_files({"llama-router.socket": Path("a")}, tmp_path, Path("/new/llama-router"))
    assert not files[0].is_edited
    assert unit_files.write(files) == [old.path]
    assert "ListenStream" in old.path.read_text()


def test_a_file_of_somebody_else_is_edited(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("[Socket]\n")
    assert unit_files.unit_files({"llama-router.socket": Path("a")}, tmp_path, Path("/x"))[0].is_edited


def test_where_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("no directory")
    refused = install("--root", str(tmp_path))
    assert refused.returncode == 73
    assert "cannot read" in refused.stderr or "cannot write" in refused.stderr
    assert install("--user", "--root", str(tmp_path)).returncode == 64


@given(path=st.text(min_size=1, max_size=20))
def test_a_path_is_one_word_of_systemd_s_or_refused(path: str) -> None:
    """systemd.syntax(7) and systemd.unit(5): quotes, backslashes, dollars and specifiers are what would change it."""
    try:
        word = unit_files._as_word(Path("/opt", path.replace("/", "_")))
    except CannotCreate:
        return
    bare = word[1:-1] if word.startswith('"') else word
    assert bare.replace("%%", "%") == str(Path("/opt", path.replace("/", "_")))
    assert " " not in bare or word != bare
    assert not set(bare) & set("\"'\\$\n\t\0")


def test_what_both_units_say_is_the_same() -> None:
    """The user's unit is the system's, less what takes privileges."""
    system, user = (
        {line for line in (ROOT / "units" / name).read_text().splitlines() if "=" in line and line[0] not in "#["}
        for name in ("llama-router.service", "user/llama-router.service")
    )
    assert user - system == {
        "ExecStart=/usr/bin/llama-router run",
        "Environment=LLAMA_ROUTER_DELEGATED=%n",
        "WantedBy=default.target",
    }


@pytest.mark.parametrize("name", ["llama-router.service", "user/llama-router.service"])
def test_units_start_what_is_replaced(name: str) -> None:
    text = (ROOT / "units" / name).read_text()
    assert text.count(unit_files.PACKAGED) == len([line for line in text.splitlines() if line.startswith("Exec")]) == 2
