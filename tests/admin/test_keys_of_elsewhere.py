"""Keys that `llama-router key` did not make: those of a file and of the environment, as llama-server has them."""

from __future__ import annotations

import time
from pathlib import Path

import recorded_answers as real
from fake_supervisor import FakeSupervisor
from fake_upstream import Serve
from keyed_web import chat, keyed_web, status_of
from made_keys import bearer
from web_tier import DEADLINE

from supervisor.core import keys
from supervisor.core.keys import KEYS_FILE

ANSWER = real.CHAT


def test_a_file_as_llama_servers(shared_supervisor: FakeSupervisor, supervisor: FakeSupervisor, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n# a comment\r\n  two\r\n")
    with keyed_web(supervisor, tmp_path, environment={"LLAMA_ROUTER_KEY_FILE": str(file)}) as tier:
        assert [status_of(tier, bearer(key)) for key in ("one", "two", "", "# a comment", "three")] == [
            *(200, 200),
            *(401, 401, 401),
        ]
        file.write_text("three\n")
        assert [status_of(tier, bearer(key)) for key in ("one", "three")] == [401, 200]
        file.write_bytes(b"x" * (2**20 - 4) + b"\nabcdefgh\n")
        assert status_of(tier, bearer("abc")) == 503, "a piece of a key is none"
        file.write_text("")
        assert [status_of(tier), status_of(tier, bearer("three"))] == [401, 401]
        file.write_bytes(b"\xef\xbb\xbfone\r\n")
        assert [status_of(tier, bearer(key)) for key in ("one", "\xef\xbb\xbfone")] == [200, 401], "as Notepad saves it"
        file.unlink()
        assert status_of(tier, bearer("three")) == 503
        message = tier.request("GET", "/v1/models", headers=bearer("x")).error["message"]
        assert message == f"no key can be checked: cannot use {file}: No such file or directory"
        assert tier.log_text().count(message) == 1, "it is told once"


def test_keys_of_the_environment(supervisor: FakeSupervisor, serve: Serve, tmp_path: Path) -> None:
    serve(lambda call: call.reply(ANSWER))
    hashes = " ".join(keys.digest(each).hex() for each in (b"one", "zwölf".encode()))
    with keyed_web(supervisor, tmp_path, environment={"LLAMA_ROUTER_KEY_HASHES": hashes}) as tier:
        assert [status_of(tier), status_of(tier, bearer("one")), status_of(tier, bearer("two"))] == [401, 200, 401]
        assert chat(tier, {"X-Api-Key": "zwölf".encode().decode("latin-1")}).status == 200
        end = time.monotonic() + DEADLINE
        while not (rows := tier.request("GET", "/ui/activity/requests.json").json) and time.monotonic() < end:
            pass
        assert [row["key"] for row in rows] == ["environment:2"]
        assert not (tier.state_dir / KEYS_FILE).exists()
