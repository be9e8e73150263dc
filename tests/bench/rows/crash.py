"""Crash: two clients ask again and again, the model server is killed, and somebody is answered again."""

from __future__ import annotations

import os
import signal
import threading
import time

from tests.bench.readings import Reading, spending
from tests.bench.routers.router import Router
from tests.bench.scenes import FIRST, Effort
from tests.bench.wire import Broken, ask

TOKENS = 24
CLIENTS = 2
ON_THEIR_WAY = 0.01  # seconds after the kill in which answers arrive that the killed server had sent
PAUSE = 0.01  # seconds before a client asks again that was not answered
PATIENCE = 30.0
ENOUGH = 4  # answers before the kill, and after it


class _Clients:
    """Those who ask, and when they were answered."""

    def __init__(self, router: Router) -> None:
        self.answered: list[float] = []
        self.errors: list[str] = []
        self._over = threading.Event()
        self._news = threading.Condition()
        self._address, self._request = router.address, router.completion(FIRST.name, TOKENS)
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, body = ask(self._address, self._request)
                if status != 200:
                    raise Broken(f"status {status}: {body[:200].decode(errors='replace')}")
            except (OSError, Broken) as error:
                self.errors.append(str(error))
                self._over.wait(PAUSE)
                continue
            with self._news:
                self.answered.append(time.monotonic())
                self._news.notify_all()

    def await_answers(self, after: float) -> list[float]:
        """Wait until there are enough answers after a moment. Raises Broken."""
        with self._news:
            if not self._news.wait_for(lambda: len(self._after(after)) >= ENOUGH, PATIENCE):
                raise Broken(f"no {ENOUGH} answers within {PATIENCE:g} s; errors: {self.errors[-3:]}")
            return self._after(after)

    def _after(self, moment: float) -> list[float]:
        return [when for when in self.answered if when > moment]

    def end(self) -> None:
        """Let each finish what it asks."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def measure(router: Router, effort: Effort) -> list[Reading]:
    """Seconds from the kill to the next answer, and what clients were refused or lost."""
    reading = Reading("crash", router.name)
    ask(router.address, router.completion(FIRST.name, TOKENS))
    clients = _Clients(router)
    try:
        answered = clients.await_answers(0.0)
        # In the middle of an answer, as far as one can tell from outside.
        time.sleep((answered[-1] - answered[0]) / len(answered) / 2)
        servers = router.model_servers()
        if not servers:
            raise Broken("there is no model server to kill")
        with spending(router, reading, models_end=True):
            killed = time.monotonic()
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
            reading.figures.append(clients.await_answers(killed + ON_THEIR_WAY)[0] - killed)
    finally:
        clients.end()
    reading.waits += reading.figures
    reading.errors += clients.errors
    return [reading]
