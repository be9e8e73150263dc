"""What is said of an option that a build of llama-server does not have, when it is used and when it is imported."""

from __future__ import annotations

import pytest

from supervisor.backends.llama_server_help import Options
from supervisor.core.llama_renamed import SUCCESSORS
from supervisor.importing import server_options
from tests.core.imported import keys, said, section

NEWER = """\
-lm,   --load-mode MODE                 model loading mode (default: auto)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
-mm,   --mmproj FILE                    path to a multimodal projector file
--mmproj-auto, --no-mmproj, --no-mmproj-auto
                                        whether to use multimodal projector file
-t,    --threads N                      number of CPU threads
"""
OLDER = NEWER.replace("load-mode", "lode-mode")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("no-mmap", "write load-mode: none"),
        ("--no-mmap", "write load-mode: none"),
        ("mmap", "write load-mode: mmap"),
        ("mlock", "write load-mode: mlock"),
        ("flash-atn", "did you mean 'flash-attn'?"),
        ("flash_attention", "did you mean 'flash-attn'?"),
        ("thread", "did you mean 'threads'?"),
        ("mmpro", "did you mean 'mmproj'?"),
        ("mmop", "`llama-server --help` lists what it knows"),
        ("temperature", "`llama-server --help` lists what it knows"),
    ],
)
def test_a_hint_leads_to_what_was_meant_or_nowhere(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="this llama-server has no such option") as caught:
        Options(NEWER).arguments(name, True)
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("name", SUCCESSORS)
def test_a_build_without_the_newer_name_is_not_said_to_have_it(name: str) -> None:
    with pytest.raises(ValueError, match="no such option; `llama-server --help` lists"):
        Options(OLDER).arguments(name, True)


@pytest.mark.parametrize(
    ("line", "newer"),
    [
        ("no-mmap = true", "load-mode: none"),
        ("mmap = true", "load-mode: mmap"),
        ("draft-max = 4", "spec-draft-n-max"),
        ("draft-min = 4", "spec-draft-n-min"),
    ],
)
def test_importing_tells_of_it_and_keeps_it(line: str, newer: str) -> None:
    found, name = section(line), line.partition(" ")[0]
    [remark] = said(found)
    assert remark.startswith(f"3: [a].{name}: ")
    assert f"have no '{name}'; with one of those, write {newer} in options" in remark
    spelling = server_options.by_key(name)
    assert spelling and {name, spelling.option.name} & keys(found)["options"].keys()


def test_every_older_name_is_one_that_can_be_imported() -> None:
    assert all(server_options.by_key(name) for name in SUCCESSORS)
