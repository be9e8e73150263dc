"""The file of presets that the editor's tests edit, and how it is put back."""

from __future__ import annotations

from served import MODEL, Served, gguf

PATH = f"/ui/presets?file={MODEL}.yaml"
TEXT = f"models:\n  {MODEL}:\n    model: {{}}\n    context: 512\n"


def put_back(router: Served) -> None:
    """Leave that file alone in the directory, as it was, whatever a test put there."""
    for path in router.presets.iterdir():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    router.write(MODEL, TEXT.format(gguf()))
    router.call("reload")
