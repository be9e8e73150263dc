"""What llama.cpp asks over and over while it computes: whether to stop. The C library answers, and counts.

The CPU backend asks after each node of a graph, hundreds of times for a token; Metal asks now and then, others never. A
Python function would take the interpreter's lock each time. sem_post(3) takes nanoseconds and does both: it counts its
calls in the semaphore and returns 0, which means no, until the count is SEM_VALUE_MAX; then it returns -1: yes.
"""

from __future__ import annotations

import ctypes
import os

from llama_cpp import llama_cpp as bindings

_MAX = os.sysconf("SC_SEM_VALUE_MAX")
_SEM_T_WORDS = 8  # of 64 bits: twice a sem_t
_libc = ctypes.CDLL(None)


class AbortFlag:
    """Whether the computation shall stop, as `callback` and `data` of llama_set_abort_callback."""

    def __init__(self) -> None:
        self.is_set = False
        self._asked = 0
        self._semaphore = (ctypes.c_uint64 * _SEM_T_WORDS)()
        self.callback = bindings.ggml_abort_callback(ctypes.cast(_libc.sem_post, ctypes.c_void_p).value)
        self.data = ctypes.cast(self._semaphore, ctypes.c_void_p)
        self.clear()

    def set(self) -> None:
        """Stop what is being computed."""
        self._asked = self.asked
        self.is_set = True
        _libc.sem_init(self._semaphore, 0, ctypes.c_uint(_MAX))

    def clear(self) -> None:
        """Let the next one compute, and count from 0. Due before the count can reach SEM_VALUE_MAX, about 2e9."""
        self.is_set = False
        _libc.sem_init(self._semaphore, 0, ctypes.c_uint(0))

    @property
    def asked(self) -> int:
        """How often llama.cpp has asked from `clear` to `set`."""
        if self.is_set:
            return self._asked
        value = ctypes.c_int()
        _libc.sem_getvalue(self._semaphore, ctypes.byref(value))
        return value.value
