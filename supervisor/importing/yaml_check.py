"""The last look at imported presets, with the eyes of `check`: what it says of them becomes a remark."""

from __future__ import annotations

from pathlib import Path

from supervisor import presets_dir
from supervisor.errors import CannotImport, Problem
from supervisor.importing import written
from supervisor.importing.draft import Imported

_FILE_KEYS = ("model", "mmproj")


def check(found: Imported, directory: Path) -> None:
    """Remark on files that are missing. Raises CannotImport if `check` would refuse more."""
    refused = []
    for draft in found.drafts:
        if not draft.is_usable:
            continue
        # One by one: of a file with hundreds of missing models `check` would tell only the first problems.
        for problem in presets_dir.look_through(directory / "imported.yaml", written.alone(draft, found)):
            key = (problem.field or "").removeprefix(f"models.{draft.name}.")
            if key in _FILE_KEYS:
                found.remark(draft.line, draft.place, f"{key}: {problem.message}")
            else:
                refused.append(Problem(found.file, draft.line, draft.place, f"{key}: {problem.message}"))
    if refused:
        raise CannotImport(refused)
    found.remarks.sort(key=lambda remark: remark.line or 0)
