"""The only executor of the core's commands. One short method each; no decisions."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from supervisor import web_tier
from supervisor.announcements import Announcements
from supervisor.backends import Place, dialect_of, plan
from supervisor.children import Children, Launch, Process, not_started
from supervisor.core import commands, log_fields
from supervisor.core.commands import Command
from supervisor.core.config import Web
from supervisor.core.events import Ended
from supervisor.core.preset import Preset
from supervisor.core.reasons import EndReason
from supervisor.core.status import model_status, status_line
from supervisor.errors import CannotStart
from supervisor.exposure import Admission
from supervisor.keepers import Keepers
from supervisor.listener import Listener
from supervisor.logs import Journal
from supervisor.loop import Loop
from supervisor.measuring import Measuring
from supervisor.memory import Memory
from supervisor.operations import Operations
from supervisor.prefetching import Prefetching
from supervisor.probes import Probes
from supervisor.systemd import Systemd


class Effects:
    """Everything the core's commands act on."""

    def __init__(
        self,
        loop: Loop,
        *,
        runtime: Path,
        state: Path,
        listener: Listener,
        children: Children,
        keepers: Keepers,
        probes: Probes,
        memory: Memory,
        measuring: Measuring,
        prefetching: Prefetching,
        operations: Operations,
        announcements: Announcements,
        journal: Journal,
        systemd: Systemd,
        serving: Callable[[], list[str]],
        renewed: Callable[[EndReason | None], None],
        web: Web,
        admission: Admission,
    ) -> None:
        self._loop = loop
        self._runtime = runtime
        self._state = state
        self._listener = listener
        self._children = children
        self._keepers = keepers
        self._probes = probes
        self._memory = memory
        self._measuring = measuring
        self._prefetching = prefetching
        self._operations = operations
        self._announcements = announcements
        self._journal = journal
        self._systemd = systemd
        self._serving = serving
        self._renewed = renewed
        self._web = web
        self._admission = admission

    def execute(self, command: Command) -> None:
        """Carry out one command."""
        match command:
            case commands.Spawn():
                self._spawn(command)
            case commands.Terminate() | commands.Kill() | commands.Probe() | commands.Measure():
                self._act_on_process(command)
            case commands.Prefetch():
                self._prefetching.read(command.paths)
            case commands.Remember():
                self._memory.remember(self._loop.fleet.models[command.model].preset, command.need)
            case commands.KeepVocabulary():
                self._keepers.keep(command.preset)
            case commands.Grant():
                self._grant(command)
            case commands.Refuse():
                self._operations.refused(command.lease, command.refusal)
            case commands.Answer():
                model = self._loop.fleet.models[command.model]
                status = model_status(self._loop.fleet, model, time.time() - time.monotonic())
                self._operations.answered(command.ask, status)
            case commands.Reject():
                self._operations.refused(command.ask, command.refusal)
            case commands.Announce():
                self._announce(command)
            case commands.DeclareReady() | commands.WebRenewed() | commands.CloseListener() | commands.Exit():
                self._act_on_supervisor(command)

    def _act_on_process(self, command: commands.Terminate | commands.Kill | commands.Probe | commands.Measure) -> None:
        launch = command.launch
        match command:
            case commands.Terminate():
                self._children.signal(launch, signal.SIGTERM)
            case commands.Kill():
                self._children.signal(launch, signal.SIGKILL)
            case commands.Probe():
                self._probes.start(launch, self._children.address(launch), command.path, time.monotonic())
            case commands.Measure():
                self._measuring.start(launch, self._children.group(launch))

    def _act_on_supervisor(
        self, command: commands.DeclareReady | commands.WebRenewed | commands.CloseListener | commands.Exit
    ) -> None:
        match command:
            case commands.DeclareReady():
                self._declare_ready()
            case commands.WebRenewed():
                self._renewed(command.why)
            case commands.CloseListener():
                self._systemd.stopping()
                self._listener.close()
            case commands.Exit():
                self._exit(command)

    def take_over(self, process: Process) -> None:
        """Go on with a process that another program started."""
        terms = self._loop.fleet.lifecycle.launches[process.launch].terms
        preset = terms if isinstance(terms, Preset) else None
        launch = Launch(
            process.launch,
            process.model,
            process.name,
            process.argv,
            {},
            process.address,
            cleanup=partial(_clean, self._place(process.launch)),
            dialect=None if preset is None else dialect_of(preset),
            limits=None if preset is None else preset.limits,
        )
        self._children.take_over(launch, process)

    def _spawn(self, command: commands.Spawn) -> None:
        if command.preset is None:
            self._children.start(
                Launch(
                    command.launch,
                    command.model,
                    command.instance,
                    web_tier.ARGV,
                    web_tier.environment(self._runtime, self._state, self._web, self._admission),
                    pass_fd=self._listener.fileno(),
                    directory=web_tier.DIRECTORY,
                )
            )
        else:
            self._spawn_model(command, command.preset)

    def _spawn_model(self, command: commands.Spawn, preset: Preset) -> None:
        place = self._place(command.launch)
        cleanup = partial(_clean, place)
        cleanup()  # a supervisor that was killed left its sockets, and they had the same numbers
        try:
            if why := self._memory.why_not_whole(preset):
                raise CannotStart(f"cannot load {why}")
            planned = plan(preset, place, self._memory)
        except (CannotStart, OSError) as error:
            cleanup()
            self._loop.deliver(Ended(command.launch, not_started(command.instance, error)))
            return
        inherited = {name: value for name, value in os.environ.items() if name not in planned.without}
        env = {**inherited, **planned.env, **_watchdog(preset)}
        self._children.start(
            Launch(
                command.launch,
                command.model,
                command.instance,
                planned.argv,
                env,
                planned.address,
                cleanup=cleanup,
                fork=planned.fork,
                dialect=planned.dialect,
                limits=preset.limits,
            )
        )

    def _place(self, launch: int) -> Place:
        return Place(self._runtime / f"{launch}.sock", self._runtime / f"{launch}.json", port=_free_port)

    def _grant(self, command: commands.Grant) -> None:
        # What the server was started with: after a reload the model's preset may be another one's.
        preset = self._loop.fleet.lifecycle.launches[command.launch].terms
        assert isinstance(preset, Preset)
        grant = {
            "model": command.model,
            "instance": command.instance,
            "launch": command.launch,
            "address": self._children.address(command.launch),
            "backend": preset.backend,
        }
        if preset.request is not None:
            grant["request"] = preset.request.model_dump()
        self._operations.granted(command.lease, grant)

    def _announce(self, command: commands.Announce) -> None:
        self._announcements.add(command, time.time() - time.monotonic())
        if command.kind != "progress":
            bad = command.reason is not None and command.reason.failure
            fields = log_fields.of_event(command)
            self._journal.write(f"llama-router: {command.text}", "error" if bad else "info", fields)
            about = {name: value for name, value in fields.items() if name != "MESSAGE_ID"}
            for line in command.reason.last_lines if bad and command.reason else ():
                self._journal.write(f"llama-router:   | {line}", "error", about)
            self._systemd.status(status_line(self._loop.fleet))

    def _declare_ready(self) -> None:
        self._systemd.notify("READY=1")
        self._journal.write_all(f"llama-router: {line}" for line in self._serving())

    def _exit(self, command: commands.Exit) -> None:
        if command.why is not None:
            self._journal.write(f"llama-router: cannot serve: the web tier {command.why.text}", "error")
        self._loop.exit_code = command.code


def _clean(place: Place) -> None:
    place.socket.unlink(missing_ok=True)
    place.settings.unlink(missing_ok=True)


def _watchdog(preset: Preset) -> dict[str, str]:
    """What a server that notifies is told of its watchdog, sd_watchdog_enabled(3)."""
    if preset.watchdog is None or preset.ready != "notify":
        return {}
    return {"WATCHDOG_USEC": str(int(preset.watchdog * 1_000_000))}


def _free_port() -> int:
    """A loopback port that is free at this moment; the program that is told it binds it right away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
