"""gunicorn's configuration: `gunicorn --config python:admin.gunicorn_conf "admin.application:create_app()"`.

Read by the master, once. Environment, set by the supervisor: LLAMA_ROUTER_LISTEN_FD (a socket already bound and
listening; without it gunicorn binds its own default), LLAMA_ROUTER_WORKERS ("auto" or a number), LLAMA_ROUTER_GRACE
(seconds that running requests may take after SIGTERM), LLAMA_ROUTER_CERTIFICATE and LLAMA_ROUTER_CERTIFICATE_KEY (PEM
files, for https), NOTIFY_SOCKET (sd_notify(3)), LLAMA_ROUTER_RUNTIME_DIR (read by create_app).
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import math
import os
import resource
import signal
from importlib import import_module
from typing import Any

import sdnotify

from admin.worker import KILL_SECONDS

AUTO_WORKERS_AT_MOST = 4
MAX_OPEN_FILES = 65536
LOOKS_BETWEEN = 100  # of the collector at what is young, between two at everything
PR_SET_PDEATHSIG = 1  # prctl(2), linux/prctl.h

# gunicorn's master says READY=1 before a worker can answer: it is not to know the socket.
_notify_socket = os.environ.pop("NOTIFY_SOCKET", None)


def _workers(setting: str) -> int:
    if setting == "auto":
        return min(len(os.sched_getaffinity(0)), AUTO_WORKERS_AT_MOST)
    return int(setting)


if _listen_fd := os.environ.get("LLAMA_ROUTER_LISTEN_FD"):
    bind = f"fd://{_listen_fd}"
if os.environ.get("LLAMA_ROUTER_CERTIFICATE"):
    certfile = os.environ["LLAMA_ROUTER_CERTIFICATE"]
    keyfile = os.environ["LLAMA_ROUTER_CERTIFICATE_KEY"]
workers = _workers(os.environ.get("LLAMA_ROUTER_WORKERS", "auto"))
worker_class = "admin.worker.RouterWorker"
worker_connections = 4096  # four times what followers.py leaves to streams without an end
backlog = 2048
keepalive = 75
timeout = 60  # seconds without a heartbeat after which a worker counts as hung; it beats every half of that
LOOK_SECONDS = timeout / 2  # between two looks of the master at that; a signal, or a worker's end, wakes it at once
graceful_timeout = math.ceil(float(os.environ.get("LLAMA_ROUTER_GRACE", "30"))) + KILL_SECONDS
limit_request_line = 8190
limit_request_field_size = 16384
# Nobody but the application decides where it is mounted, and whom it believes what (admin/forwarded.py).
forwarder_headers = ""
forwarded_allow_ips = ""
control_socket_disable = True
accesslog = None
errorlog = "-"
loglevel = "warning"
proc_name = "llama-router web"
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - heartbeats must not touch a disk


def on_starting(server: Any) -> None:
    """The listening socket is the supervisor's; gunicorn removes a UNIX socket's path unless systemd owns it. And its
    master would look at its workers every second. What the application is made of is imported once for all workers."""
    import_module("admin.application")
    server.systemd = True
    wait = server.wait_for_signals
    server.wait_for_signals = lambda timeout: wait(LOOK_SECONDS)


def pre_fork(server: Any, worker: Any) -> None:
    """The collector writes to whatever it looks at, and what a worker writes to it shares no more: 4 MiB each."""
    gc.collect()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:
    """No worker outlives its master, each may hold as many connections as it accepts, and one that hangs before its
    first heartbeat is found too: until then gunicorn takes the time of day for one, which is always in its future."""
    worker.tmp.notify()
    # Or the interpreter, on its way out, would take logging's lock, which is gevent's and in pieces by then.
    atexit.register(logging._handlerList.clear)  # type: ignore[attr-defined]  # what it forgets, it need not lock for
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker.ppid:  # the master died before the request to be told so
        os._exit(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def post_worker_init(worker: Any) -> None:
    """The application is built: the web tier can answer as soon as this worker accepts.

    The collector passes over it. With it, or with the objects of a thousand requests, a look at everything takes 50 ms
    in which nobody is served, so there are few.
    """
    gc.freeze()
    gc.set_threshold(*gc.get_threshold()[:2], LOOKS_BETWEEN)
    if _notify_socket is None:
        return
    os.environ["NOTIFY_SOCKET"] = _notify_socket  # where sdnotify looks
    try:
        sdnotify.SystemdNotifier().notify("READY=1")
    finally:
        del os.environ["NOTIFY_SOCKET"]
