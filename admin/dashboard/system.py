"""System: the machine, what models take of it, and what llama-router itself is made of."""

from __future__ import annotations

import platform
import sqlite3
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import gevent
from flask import Flask, current_app, render_template
from markupsafe import Markup

from admin import activity_queries, machine
from admin.activity import Activity, in_a_thread
from admin.dashboard.access import Role, needs
from admin.dashboard.pages import new_blueprint
from admin.facts import Facts
from admin.latest import Latest
from admin.metrics import installed
from admin.sharing import Shared
from admin.supervision import ANSWER_SECONDS
from admin.view import room
from admin.words import times
from supervisor.core.quantities import readable_size
from supervisor.errors import Refused

blueprint = new_blueprint("system")

SPAN_SECONDS = 0.25  # over which the first look at a page measures
KEEPER = "llama-router: vocabulary of "
LONGEST_SPAN_SECONDS = 10.0
PACKAGES = ("llama-cpp-python", "gunicorn", "gevent", "flask")
MODEL_OPTIONS = ("--model", "-m")

Json = dict[str, Any]


@blueprint.record_once
def set_up(state: Any) -> None:
    """What the page remembers from one look to the next."""
    app: Flask = state.app
    watch = Watch(Facts(app.config["RUNTIME_DIR"], ANSWER_SECONDS))
    app.extensions["system.now"] = Shared(lambda: _html(app, watch))


@blueprint.get("/ui/system")
@needs(Role.VIEWER)
def index() -> str:
    """The page. Raises NotRunning or ProtocolError."""
    return render_template("system.html", now=_now())


@blueprint.get("/ui/system/now")
@needs(Role.VIEWER)
def now() -> str:
    """The part of it that changes."""
    return _now()


def _now() -> Markup:
    shared: Shared[Markup] = current_app.extensions["system.now"]
    return shared.get()


class Watch:
    """Measures between two looks, of whoever looks; one look at a time."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._cards = machine.Cards()
        self._processes = machine.Processes()
        self._last: machine.Ticks | None = None

    def look(self, answer: Json) -> Json:
        """All that was measured, for a status object. Takes SPAN_SECONDS if nobody has looked for a while."""
        servers = servers_of(answer)
        family = in_a_thread(lambda: self._processes.below(answer["pid"], servers))
        pids = [process.pid for process in family]
        before = self._last
        if before is None or time.monotonic() - before.at > LONGEST_SPAN_SECONDS:
            before = in_a_thread(lambda: machine.ticks(pids))
        if time.monotonic() - before.at < SPAN_SECONDS:
            gevent.sleep(SPAN_SECONDS)
        after = self._last = in_a_thread(lambda: machine.ticks(pids))
        facts = self._facts.of(answer)
        files = model_files(facts)
        folders = [answer["models_dir"]] if answer.get("models_dir") else []
        return {
            "cores": machine.cores(before, after),
            "memory": in_a_thread(machine.memory),
            "cards": in_a_thread(self._cards.look),
            "disks": in_a_thread(lambda: machine.disks(folders, files)),
            "processes": processes(answer, family, machine.process_percent(before, after)),
        }


def servers_of(answer: Json) -> dict[int, tuple[str, int | None]]:
    """By process id the name of each model server and the bytes it uses, None if unknown or if it is one of several."""
    found = {}
    for model in answer["models"]:
        replicas = model.get("replicas") or [model]
        used = (model.get("memory") or {}).get("used") or {}
        for replica in replicas:
            if replica["pid"] is not None:
                found[replica["pid"]] = (replica["name"], used.get("host") if len(replicas) == 1 else None)
    return found


def model_files(facts: dict[str, Json]) -> list[tuple[str, int | None]]:
    """The files that presets name, with the bytes of their weights if these are known: there may be several shards."""
    found = []
    for fact in facts.values():
        args = fact.get("args") or []
        for option, value in pairwise(args):
            if option in MODEL_OPTIONS and Path(value).is_absolute():
                found.append((value, (fact.get("meta") or {}).get("size")))
    return found


def processes(answer: Json, family: list[machine.Process], percent: dict[int, float]) -> list[Json]:
    """Rows of the table: what each process is for, its memory and its share of a core."""
    servers, web = servers_of(answer), answer["web"]["pid"]
    own = next((process.command for process in family if process.pid == answer["pid"]), "")
    rows = []
    for process in family:
        used = process.pss
        if process.pid == answer["pid"]:
            name = "supervisor"
        elif process.pid == web:
            name = "web tier"
        elif process.parent == web:
            name = "web worker"
        elif process.pid in servers:
            name, used = servers[process.pid]
        else:
            name = _name_of(process.command, own)
        rows.append(
            {
                "name": name,
                "pid": process.pid,
                "command": process.command[:300],
                "threads": process.threads,
                "memory": readable_size(used) if used is not None else "–",
                "cpu": f"{percent[process.pid]:.0f} %" if process.pid in percent else "–",
            }
        )
    return rows


def _name_of(command: str, own: str) -> str:
    """What a process is that is neither the supervisor, whose command line is its `own`, of the web tier, nor a model
    server: the supervisor's forks read, measure, and write log files."""
    if command.startswith(KEEPER):
        return "vocabulary"
    if command == own:
        return "supervisor's fork"
    known = {"supervisor.forkserver": "forkserver", "guard_program.py": "guard"}
    return next((name for mark, name in known.items() if mark in command), "of a model")


def versions(answer: Json) -> list[tuple[str, str]]:
    """What runs, and in which version."""
    found = [("llama-router", str(answer["version"])), ("Python", platform.python_version())]
    found += [(name, shown) for name in PACKAGES if (shown := installed(name)) is not None]
    return [*found, ("SQLite", sqlite3.sqlite_version), ("Kernel", f"{platform.system()} {platform.release()}")]


def _html(app: Flask, watch: Watch) -> Markup:
    """The part of the page that changes, which is the same for everybody. Raises NotRunning or ProtocolError."""
    latest: Latest = app.extensions["latest"]
    answer = latest.status()
    looked = watch.look(answer)
    memory, cores = looked["memory"], looked["cores"]
    view = {
        "status": answer,
        "cpu": sum(cores) / len(cores) if cores else 0.0,
        "load": ", ".join(f"{each:.2f}" for each in memory["load"]),
        "room": [kind for kind in room(answer) if kind["name"] != "Models"],
        "used": memory["total"] - memory["available"],
        "versions": versions(answer),
        "since": times(answer["since"]),
        "size": readable_size,
        "recorded": recorded(app.extensions["activity"]),
        **looked,
    }
    return Markup(app.jinja_env.get_template("system_now.html").render(view))  # noqa: S704  # escaped, as all templates


def recorded(activity: Activity) -> Json | None:
    """How much the activity file holds; None if it can't be read."""
    try:
        kept, dropped = activity.ask(
            lambda connection: (activity_queries.kept(connection), activity_queries.dropped(connection))
        )
        return {"kept": kept, "dropped": dropped, "bytes": sum(each.stat().st_size for each in activity.files())}
    except (sqlite3.Error, OSError, Refused):
        return None
