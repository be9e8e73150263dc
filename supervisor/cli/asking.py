"""Asking the supervisor: the connection, and how a refusal is worded for the person who asked."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from supervisor.cli import answers
from supervisor.cli.options import runtime_dir
from supervisor.client import Client
from supervisor.directories import for_client
from supervisor.errors import EX_NO_SUCH_MODEL, Refused, RouterError

ANSWER_SECONDS = 10.0
# What a refusal begins with that says no more than "cannot load NAME", which is written before it.
_NAMED = re.compile(r"^model (?:name=.*? failed to load|'.*?' cannot be loaded): ")


def connect(*, patient: bool = False) -> Client:
    """A connection to the supervisor the options and the environment point to. Raises NotRunning.

    A patient one waits for an answer as long as it takes, any other ANSWER_SECONDS.
    """
    return Client(for_client(os.environ, runtime_dir()), timeout=None if patient else ANSWER_SECONDS)


@contextmanager
def refused_as(what: str, client: Client, name: str | None = None) -> Iterator[None]:
    """Within it, a Refused reads "cannot WHAT: why", with a suggestion when no model has that `name`."""
    try:
        yield
    except Refused as error:
        message = _NAMED.sub("", str(error)).removesuffix(f": '{name}'")
        if not message.startswith("cannot "):
            message = f"cannot {what}: {message}"
        if name is not None and error.exit_code == EX_NO_SUCH_MODEL:
            known = _status_if_told(client)
            message += did_you_mean(name, known.names() if known else ())
        error.args = (message,)
        raise


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message, empty when nothing is similar."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def model_if_told(client: Client, name: str) -> answers.Model | None:
    """What the supervisor says of a model, to explain an error with; None when it says nothing."""
    known = _status_if_told(client)
    return known.find(name) if known else None


def _status_if_told(client: Client) -> answers.Status | None:
    try:
        return answers.status(client.call("status"))
    except RouterError:
        return None
