"""Python for the start of a supervisor: what happens when nothing is left to do of a reexec but execve(2)."""

from __future__ import annotations

_PROGRAM = """
import os
become = os.execve
def execve(path, argv, env):
    if env.get('LLAMA_ROUTER_HANDOVER', '').startswith('take'):
        {statement}
    become(path, argv, env)
os.execve = execve
"""


def at_the_last_moment(statement: str) -> str:
    """Carry out a statement then."""
    return _PROGRAM.format(statement=statement)
