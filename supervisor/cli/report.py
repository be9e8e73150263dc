"""How an error reaches people and programs: lines on standard error, JSON when asked for, an exit code."""

from __future__ import annotations

import io
import os
import traceback
from contextlib import suppress

import click

from supervisor import protocol
from supervisor.cli.options import JSON
from supervisor.cli.terminal import complain, explain, say_json
from supervisor.errors import EX_SOFTWARE, ConfigurationError, Problem, Refused, RouterError


def report(error: RouterError, details: tuple[str, ...] = ()) -> int:
    """Tell the error to people, and after --json to programs too. Returns the exit code."""
    code = tell(error, details)
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(JSON):
        with suppress(OSError, RouterError):
            say_json(_as_json(error))
    return code


def tell(error: RouterError, details: tuple[str, ...] = ()) -> int:
    """One line for the error, then its problems and `details` on a line each. Returns the exit code."""
    _trace()
    complain("cannot use the configuration:" if isinstance(error, ConfigurationError) else str(error))
    for line in (*map(str, _problems(error)), *details):
        explain(line, is_error=True)
    return error.exit_code


def report_usage(error: click.ClickException) -> None:
    """What click says of a wrong command line."""
    text = io.StringIO()
    error.show(text)
    for line in text.getvalue().splitlines():
        explain(line, is_error=True)


def report_bug(error: Exception) -> int:
    """Tell of an exception nobody foresaw. Returns the exit code."""
    _trace()
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    complain(f"cannot go on because of a bug: {what}; please report it, with LLAMA_ROUTER_DEBUG=1 for details")
    return EX_SOFTWARE


def _as_json(error: RouterError) -> protocol.Message:
    if isinstance(error, Refused):
        return protocol.refusal(error)
    detail: protocol.Message = {"type": type(error).__name__, "message": str(error)}
    if problems := _problems(error):
        detail["problems"] = [vars(problem) for problem in problems]
    return {"ok": False, "error": detail}


def _problems(error: RouterError) -> list[Problem]:
    return error.problems if isinstance(error, ConfigurationError | Refused) else []


def _trace() -> None:
    if os.environ.get("LLAMA_ROUTER_DEBUG") == "1":
        traceback.print_exc()
