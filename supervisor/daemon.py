"""`llama-router run`: put the parts together, run the loop, leave nothing behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Mapping

from supervisor import access, child, descriptors, exposure, preset_origins, protocol
from supervisor.announcements import Announcements, Record
from supervisor.aside import Aside
from supervisor.backends import missing_program
from supervisor.cgroups import Cgroups
from supervisor.children import Children
from supervisor.client import SOCKET_NAME
from supervisor.configuration import Configuration
from supervisor.configured import Answer, Configured
from supervisor.control import ControlServer
from supervisor.core.cgroups import unenforced
from supervisor.core.config import Listen, Log, parse_listen
from supervisor.core.events import Begin, Event, PresetsChanged, StopAsked, TakenOver
from supervisor.core.fleet import Fleet
from supervisor.core.preset import Preset
from supervisor.directories import Directories, check_socket_length, make_private
from supervisor.effects import Effects
from supervisor.errors import CannotCreate, ConfigurationError, Problem
from supervisor.exposure import Admission, Hashes
from supervisor.facts import FactBook
from supervisor.file_history import History
from supervisor.forking import Forkserver
from supervisor.guard import Guard
from supervisor.handover import Handover
from supervisor.keepers import Keepers
from supervisor.listener import Listener
from supervisor.logs import Journal, LogBook, LogLine
from supervisor.loop import Loop
from supervisor.measuring import Measuring
from supervisor.memory import Memory
from supervisor.notify import NotifySocket
from supervisor.operations import Operations, event_message, line_message
from supervisor.prefetching import Prefetching
from supervisor.preset_files import PresetFiles
from supervisor.preset_paths import absolute
from supervisor.probes import Probes
from supervisor.protocol import WEB
from supervisor.reading import Reading
from supervisor.reexec import Reexec
from supervisor.runtime_lock import held
from supervisor.signals import STOP, Signals
from supervisor.status_book import StatusBook
from supervisor.succession import Succession
from supervisor.systemd import Systemd

NOTIFY_NAME = "notify.sock"
LONGEST_SOCKET_NAME = "1000000000.sock"


def run(
    configuration: Configuration,
    directories: Directories,
    listen: str | None,
    memory: Memory,
    hashes: Hashes,
    passed: socket.socket | None = None,
) -> int:
    """Serve until SIGTERM or Ctrl-C, on the socket that systemd passed if it did. `hashes` are those of the
    environment's keys. Returns the exit code. Raises CannotListen, CannotCreate, ConfigurationError or AlreadyRunning
    before anything was started."""
    address = _listen_address(configuration, listen)
    admission = exposure.admission(configuration, address, hashes)
    if wrong := exposure.problems(configuration, address, directories.state, admission):
        raise ConfigurationError(wrong)
    descriptors.raise_limit()
    make_private(directories.runtime)
    check_socket_length(directories.runtime / LONGEST_SOCKET_NAME)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(held(directories.runtime))
        listener = Listener(address, _scheme(configuration), passed)
        stack.callback(listener.close)
        make_private(directories.state, tighten=False)
        bound = parse_listen(listener.address)
        admission = exposure.admission(configuration, bound, hashes)
        if wrong := exposure.problems(configuration, bound, directories.state, admission):
            raise ConfigurationError(wrong)
        policy = memory.policy(configuration.config)
        fleet = Fleet(configuration.presets, configuration.aliases, policy, time.monotonic(), configuration.needs)
        overridden = _overridden(listen, listener)
        daemon = Daemon(fleet, configuration, directories, lock, listener, overridden, memory, admission)
        stack.callback(daemon.close)
        asked = listen is not None or "listen" in configuration.config.model_fields_set
        if passed is not None and asked and not listener.is_at(address):
            daemon.tell_unused(address)
        daemon.begin(configuration)
        return _run(daemon, Begin())


def take_over(inherited: Handover, directories: Directories, listen: str | None, memory: Memory) -> int:
    """The same with what another program left in this process. Raises CannotTakeOver."""
    fleet, configuration = inherited.restored()
    for fd in inherited.descriptors:
        os.set_inheritable(fd, False)
    descriptors.was_given(inherited.limits)
    descriptors.raise_limit()
    for question, answer in inherited.answers:
        memory.take(question, answer)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, inherited.lock)
        listener = Listener(configuration.config.listen, _scheme(configuration), inherited=inherited.listener)
        stack.callback(listener.close)
        lock, overridden = inherited.lock, _overridden(listen, listener)
        admission = exposure.admission(configuration, parse_listen(listener.address), inherited.hashes)
        daemon = Daemon(fleet, configuration, directories, lock, listener, overridden, memory, admission, inherited)
        stack.callback(daemon.close)
        daemon.succession.take_over(inherited)
        return _run(daemon, TakenOver())


def _run(daemon: Daemon, first: Event) -> int:
    """With the collector, which leaves alone what was there before: what it writes to is not shared with forks."""
    gc.freeze()
    gc.enable()
    return daemon.loop.run(first)


class Daemon:
    """All parts of one running supervisor. `overridden` are keys of config.yaml that are decided elsewhere, `lock` is
    the descriptor that holds the runtime directory, and `inherited` what another program left."""

    def __init__(
        self,
        fleet: Fleet,
        configuration: Configuration,
        directories: Directories,
        lock: int,
        listener: Listener,
        overridden: frozenset[str],
        memory: Memory,
        admission: Admission,
        inherited: Handover | None = None,
    ) -> None:
        self.started = inherited.since if inherited else time.time()
        self.lock = lock
        self.listener = listener
        self._runtime, self.state_dir = directories.runtime, directories.state
        self.memory = memory
        self.facts = FactBook(memory.header, inherited.revision if inherited else 0)
        self.links: list[str] = []
        self.admission = admission
        self.succession = Succession(self)
        self.journal = Journal(log=_log(configuration), usual=directories.state / "logs")
        memory.serve(self._warn)
        self.systemd = Systemd()
        # Inherited by all that is started, and by nobody else: a later supervisor may have the same directories.
        self.mark = inherited.mark if inherited else f"{os.getpid()}.{time.time_ns()}"
        os.environ[child.SUPERVISOR_VARIABLE] = self.mark
        running = inherited.processes if inherited else []
        self.cgroups = Cgroups({process.launch for process in running} if inherited else None)
        self._unenforced: dict[str, str | None] = {}
        groups = [process.pid for process in running]
        mark, guard = f"{child.SUPERVISOR_VARIABLE}={self.mark}", inherited.guard if inherited else None
        self.guard = Guard(mark, self.cgroups.root, directories.runtime, groups, guard)
        self.loop = Loop(fleet)
        self.loop.timed.append(self.systemd)
        self.journal.serve(self.loop)
        self.logbook = LogBook(time.time, self._new_lines)
        self.announcements = Announcements(time.time, self._new_record)
        self.reading = Reading(self.loop, unknown=memory.unknown, take=memory.take, journal=self.journal)
        self.configured = Configured(
            self.loop,
            configuration,
            use=self._use,
            judge=memory,
            reading=self.reading,
            overridden=overridden,
            journal=self.journal,
            announcements=self.announcements,
        )
        self.aside = Aside(self.loop)
        self.operations = Operations(
            self.loop,
            self.announcements,
            self.logbook,
            status=StatusBook(self).told,
            facts=lambda: self.facts.of(self.configured.running),
            reload=self._reload,
            autoload=lambda: self.configured.running.config.autoload,
            lacks=lambda preset: (missing_program(preset) or memory.why_not_whole(preset)) is not None,
            reexec=lambda asker: self.reexec.ask(asker),
            files={
                **self._preset_files(memory).handlers,
                "preset": preset_origins.handler(lambda: self.configured.running, self._name_of, memory.header),
            },
        )
        runtime = directories.runtime
        try:
            self.notify = NotifySocket(runtime / NOTIFY_NAME, inherited.notify if inherited else None)
            self.control = ControlServer(
                self.loop,
                runtime / SOCKET_NAME,
                self.operations.handle,
                self.operations.gone,
                inherited.control if inherited else None,
            )
        except OSError as error:
            raise CannotCreate(f"cannot create sockets in {runtime}: {error.strerror or error}") from None
        self.forkserver = Forkserver(self.loop, self.logbook, self.guard, self.journal, self.notify.path)
        self.keepers = Keepers(self.loop, self.logbook, self.guard, self.journal, self.forkserver)
        self.children = Children(self.loop, self.logbook, self.notify, self.guard, self.keepers, self.cgroups)
        self.measuring = Measuring(self.loop, memory.look)
        self.prefetching = Prefetching(self.loop)
        self.probes = Probes(self.loop)
        self.signals = Signals(self.loop, self._signalled)
        self.reexec = Reexec(
            self.loop, self.children, self.signals, self.journal, self.succession, self.operations.answer
        )
        self.effects = Effects(
            self.loop,
            runtime=runtime,
            state=directories.state,
            listener=listener,
            children=self.children,
            keepers=self.keepers,
            memory=memory,
            measuring=self.measuring,
            prefetching=self.prefetching,
            probes=self.probes,
            operations=self.operations,
            announcements=self.announcements,
            journal=self.journal,
            systemd=self.systemd,
            serving=self._serving,
            renewed=self.succession.renewed,
            web=configuration.config.web,
            admission=admission,
        )
        self.loop.execute = self.effects.execute
        self.configured.watch.start()
        self.succession.keep_forkserver()

    def begin(self, configuration: Configuration) -> None:
        """What is done and told at the start, before the loop runs."""
        link = access.link_at_start(self.state_dir, self._runtime, self._warn)
        self.links = [] if link is None else [f"to sign in, {access.link_line(self.listener.url, link)}"]
        self.configured.tell_faults(configuration.faults)
        self._tell_unenforced(configuration.presets)

    def close(self) -> None:
        """Free everything; whatever still runs is killed."""
        self.children.kill_all(self.journal.processes)
        access.forget(self._runtime)
        self.reading.close()
        self.aside.close()
        self.prefetching.close()
        self.control.close()
        self.notify.close()
        self.configured.watch.close()
        self.journal.close()
        self.loop.close()
        self.guard.close()
        self.signals.close()

    def tell_unused(self, address: Listen) -> None:
        """Say that systemd passed another socket than was asked for."""
        where = self.listener.address
        self._warn(f"{address} is not used: systemd listens on {where}, as llama-router.socket says; change it there")

    def _preset_files(self, memory: Memory) -> PresetFiles:
        return PresetFiles(self.configured, memory, History(self.state_dir / "history"), self.aside, memory.apart)

    def _tell_unenforced(self, presets: Mapping[str, Preset]) -> None:
        """Tell once what each preset asks in vain."""
        found = {name: unenforced(preset, self.cgroups.offered) for name, preset in presets.items()}
        for name, why in found.items():
            if why is not None and self._unenforced.get(name) != why:
                self.journal.write(f"llama-router: {name}: {why}", "warning", {"MODEL": name})
        self._unenforced = found

    def _name_of(self, asked: str) -> str | None:
        model = self.loop.fleet.resolve(asked)
        return model.preset.name if model else None

    def _use(self, new: Configuration) -> None:
        self.logbook.keep_only(self.loop.fleet.models.keys() | {WEB})  # or names that come and go would fill the memory
        self.journal.use(_log(new))
        self._tell_unenforced(new.presets)
        policy = self.memory.policy(new.config)
        self.loop.deliver(PresetsChanged(new.presets, new.aliases, policy, new.needs))
        self.succession.keep_forkserver()

    def _reload(self, dry_run: bool, then: Answer) -> None:
        (self.configured.would_change if dry_run else self.configured.reload)(then)

    def _warn(self, line: str) -> None:
        self.journal.write(f"llama-router: {line}", "warning")

    def _serving(self) -> list[str]:
        """What is told when the web tier is ready; the first time, how to sign in to it if no password is set."""
        count = len(self.loop.fleet.models)
        links, self.links = self.links, []
        return [f"serving {count} model{'s'[: count != 1]} on {self.listener.told}", *links]

    def _new_lines(self, lines: list[LogLine]) -> None:
        self.journal.write_lines(lines)
        followers = [each for each in self.control.connections if each.follows_log == lines[0].name]
        if followers:
            encoded = b"".join(protocol.encode(line_message(line)) for line in lines)
            for connection in followers:
                connection.send_encoded(encoded)

    def _new_record(self, record: Record) -> None:
        encoded = protocol.encode(event_message(record))
        for connection in [each for each in self.control.connections if each.follows_events]:
            connection.send_encoded(encoded)

    def _signalled(self, numbers: set[int]) -> None:
        if numbers & STOP:
            self.loop.deliver(StopAsked())
        if signal.SIGHUP in numbers:
            self._reload_on_signal()
        if signal.SIGCHLD in numbers:
            self.children.reap_orphans()

    def _reload_on_signal(self) -> None:
        """Tell systemd around it, unless that would be the first READY=1, which the web tier has to earn."""
        if self.loop.fleet.web.ever_ready:
            self.systemd.reloading()
        self.configured.reload_and_tell(self._reloaded_on_signal)

    def _reloaded_on_signal(self) -> None:
        if self.loop.fleet.web.ever_ready:
            self.systemd.notify("READY=1")


def _log(configuration: Configuration) -> Log:
    """What config.yaml says of the log; the directory counts from there."""
    log = configuration.config.log
    if log.directory is None:
        return log
    return log.model_copy(update={"directory": absolute(configuration.path.parent, log.directory)})


def _listen_address(configuration: Configuration, listen: str | None) -> Listen:
    if listen is None:
        return configuration.config.listen
    try:
        return parse_listen(listen)
    except ValueError as error:
        raise ConfigurationError([Problem("--listen", None, None, str(error))]) from None


def _scheme(configuration: Configuration) -> str:
    return "https" if configuration.config.web.tls else "http"


def _overridden(listen: str | None, listener: Listener) -> frozenset[str]:
    return frozenset({"listen"} if listen is not None or listener.is_passed else ())
