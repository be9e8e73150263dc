"""Every exception of llama-router, one tree. Messages read "cannot X: why" and name the offending value and the fix.

`exit_code` is what a command ends with: sysexits(3) numbers, and systemctl's 3 and 4 for "not running" and
"no such model".
"""

from __future__ import annotations

from dataclasses import dataclass

EX_FAILED = 1
EX_NOT_RUNNING = 3
EX_NO_SUCH_MODEL = 4
EX_USAGE = 64
EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_CANTCREAT = 73
EX_TEMPFAIL = 75
EX_PROTOCOL = 76
EX_CONFIG = 78


class RouterError(Exception):
    """Any error of llama-router itself; the caller shows the message and ends with `exit_code`."""

    exit_code = EX_SOFTWARE


@dataclass(frozen=True)
class Problem:
    """One thing wrong (or, as a notice, not yet acted on) in the configuration.

    `line` counts from 1; `field` is a dotted path such as "models.qwen.restart.limit". Either may be unknown.
    """

    file: str
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class ConfigurationError(RouterError):
    """The configuration can't be used; all its problems at once. Fix the files named and run `check`."""

    exit_code = EX_CONFIG

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class CannotImport(ConfigurationError):
    """Another program's configuration can't be read; all its problems at once. Nothing was written."""

    exit_code = EX_DATAERR


class CannotOpen(RouterError):
    """A file named on the command line does not exist or may not be read."""

    exit_code = EX_NOINPUT


class CannotCreate(RouterError):
    """A directory, socket or file of the daemon can't be made; nothing was started."""

    exit_code = EX_CANTCREAT


class CannotListen(RouterError):
    """The address of the web tier can't be bound; choose another one or stop what holds it."""

    exit_code = EX_UNAVAILABLE


class CannotTakeOver(RouterError):
    """What another program handed over is not understood in full; it goes on by itself. Restart it instead."""

    exit_code = EX_DATAERR


class AlreadyRunning(RouterError):
    """Another llama-router holds the runtime directory; use another one with --runtime-dir."""

    exit_code = EX_TEMPFAIL


class CannotStart(RouterError):
    """A child process can't be started: the program is missing or may not be run."""


class CannotReadModel(RouterError):
    """A GGUF file can't be read or is damaged; get it again, or correct its path. Loading it would fail, too."""

    exit_code = EX_DATAERR

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"cannot read {path}: {why}")
        self.path = path
        self.why = why


class NotAModel(CannotReadModel):
    """A file is no GGUF file, or only the beginning or a part of a model; wait until it is whole, or move it away."""


class IncompleteModel(NotAModel):
    """A file ends before its model does, or a shard is not there; `takes` is how many bytes it has to have, None if not
    even that is known."""

    def __init__(self, path: str, why: str, takes: int | None) -> None:
        super().__init__(path, why)
        self.takes = takes


class WebTierFailed(RouterError):
    """The web tier ended before it ever answered; the message holds its last log lines."""


class NotRunning(RouterError):
    """No supervisor answers on the control socket; start one, or name its --runtime-dir."""

    exit_code = EX_UNAVAILABLE


class ProtocolError(RouterError):
    """The other side of the control socket sent what `protocol` does not allow; close the connection."""

    exit_code = EX_PROTOCOL


class Refused(RouterError):
    """The supervisor answered a request with an error object.

    `status` is the HTTP status, `error_type` OpenAI's type, `retry_after` seconds for the header of that name.
    """

    exit_code = EX_FAILED

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        error_type: str = "server_error",
        retry_after: float | None = None,
        problems: list[Problem] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.retry_after = retry_after
        self.problems = problems or []
        if problems:
            self.exit_code = EX_CONFIG
        elif status == 404:
            self.exit_code = EX_NO_SUCH_MODEL
