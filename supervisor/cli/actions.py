"""What load, unload and restart have in common: ask, wait, tell how it ended."""

from __future__ import annotations

import time

from supervisor.cli import answers, describe
from supervisor.cli.asking import connect, model_if_told, refused_as
from supervisor.cli.report import report
from supervisor.cli.terminal import complain, escape, explain, say, say_json
from supervisor.errors import EX_FAILED, Refused

RUNNING = frozenset({"ready"})
ENDED = frozenset({"stopped", "failed"})


def act(op: str, name: str, *, goal: frozenset[str], wait: bool, as_json: bool) -> int:
    """Ask for `op` on the model and print the outcome; with `wait`, the outcome is a state of `goal` or a failure.

    Returns the exit code. Raises NotRunning and ProtocolError.
    """
    began, began_at = time.monotonic(), time.time()
    with connect(patient=wait) as client:
        try:
            with refused_as(f"{op} '{name}'", client, name):
                answer = client.call(op, model=name, wait=wait)
        except Refused as error:
            model = model_if_told(client, name)
            return report(error, describe.last_lines(model) if model else ())
    model = answers.model(answer)
    if as_json:
        say_json(answer)
    reached = model.state in goal
    if wait and not reached:
        return _failed(op, model)
    if not as_json:
        say(escape(f"{model.name}: {_outcome(model, reached, began_at, time.monotonic() - began)}"))
    return 0


def _outcome(model: answers.Model, reached: bool, began_at: float, seconds: float) -> str:
    if not reached:
        return describe.state(model, time.time())
    if model.since < began_at:
        return f"{model.state} already"
    return f"{model.state} after {seconds:.1f} s"


def _failed(op: str, model: answers.Model) -> int:
    complain(f"cannot {op} '{model.name}': {describe.state(model, time.time())}")
    for line in describe.last_lines(model):
        explain(line)
    return EX_FAILED
