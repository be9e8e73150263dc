"""The systemd units for an installation without a package: where they belong, and that they start this very program.

Each file ends with a line that has the checksum of what is above it, which tells whether somebody edited it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor import file_writing
from supervisor.errors import CannotCreate

PACKAGED = "/usr/bin/llama-router"  # what the units of the package start
PACKAGED_IN = ("usr/lib/systemd/system", "lib/systemd/system")
SYSTEM = {
    "llama-router.service": Path("etc/systemd/system/llama-router.service"),
    "llama-router.socket": Path("etc/systemd/system/llama-router.socket"),
    "llama-router.sysusers": Path("etc/sysusers.d/llama-router.conf"),
    "llama-router.tmpfiles": Path("etc/tmpfiles.d/llama-router.conf"),
}
USER = {
    "user/llama-router.service": Path("systemd/user/llama-router.service"),
    "llama-router.socket": Path("systemd/user/llama-router.socket"),
}
MODE = 0o644
# What would mean something else in the first word of ExecStart=, see systemd.service(5).
UNFIT = frozenset("\"'\\$;|{}")
_MARK = "# llama-router install-units "


@dataclass(frozen=True)
class UnitFile:
    """What is to be at `path`; `present` is what is there."""

    path: Path
    text: str
    present: str | None

    @property
    def is_edited(self) -> bool:
        """Whether what is there was written, or changed, by somebody."""
        if self.present is None:
            return False
        above, mark, sum_ = self.present.rpartition(_MARK)
        return not mark or sum_.strip() != _checksum(above)


def unit_files(targets: Mapping[str, Path], root: Path, program: Path) -> list[UnitFile]:
    """The files of `targets` below `root`, starting `program`. Raises CannotCreate."""
    word = _as_word(program)
    return [_unit_file(name, root / target, word) for name, target in targets.items()]


def packaged(root: Path) -> Path | None:
    """The service that a package brought, below `root`: what is written to /etc would hide it."""
    found = (root / directory / "llama-router.service" for directory in PACKAGED_IN)
    return next((path for path in found if path.exists()), None)


def write(files: list[UnitFile]) -> list[Path]:
    """Write those that differ; these are returned. Raises CannotCreate."""
    written = []
    for file in files:
        if file.text != file.present:
            try:
                file.path.parent.mkdir(parents=True, exist_ok=True)
                file_writing.replace(file.path, file.text.encode(), file_writing.present(file.path), mode=MODE)
            except OSError as error:
                raise CannotCreate(f"cannot write {file.path}: {error.strerror or error}") from None
            written.append(file.path)
    return written


def _unit_file(name: str, path: Path, word: str) -> UnitFile:
    above = (_source() / name).read_text().replace(PACKAGED, word)
    try:
        present = path.read_text(errors="replace")
    except FileNotFoundError:
        present = None
    except OSError as error:
        raise CannotCreate(f"cannot read {path}, which is there already: {error.strerror or error}") from None
    return UnitFile(path, f"{above}{_MARK}{_checksum(above)}\n", present)


def _source() -> Path:
    """The wheel carries them inside the package, a checkout beside it."""
    here = Path(__file__).parent
    inside = here / "units"
    return inside if inside.is_dir() else here.parent / "units"


def _as_word(program: Path) -> str:
    """A path as the first word of ExecStart=."""
    text = str(program)
    if not text.isprintable() or UNFIT & set(text):
        raise CannotCreate(
            f"cannot write a unit that starts {text!r}: its path has characters that systemd reads otherwise"
        )
    text = text.replace("%", "%%")
    return f'"{text}"' if " " in text else text


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
