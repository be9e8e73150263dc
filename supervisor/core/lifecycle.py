"""The life of one instance: every transition, its deadline, and the commands that go with it.

Whether an instance *should* run is the fleet's business; this module only knows how to get it there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from supervisor.core.commands import Announce, Command, Kill, Probe, Spawn, Terminate
from supervisor.core.events import Notified, Probed
from supervisor.core.fleet_state import WEB, Instance, Model, WebTier
from supervisor.core.preset import HttpReady, Preset
from supervisor.core.quantities import format_duration
from supervisor.core.reasons import CALLED_OFF, RESET, EndReason, Kind
from supervisor.core.restart import Verdict, verdict
from supervisor.core.states import State, Trigger, next_state

FIRST_PROBE_DELAY = 0.05
MAX_PROBE_DELAY = 1.0
KILL_AGAIN = 5.0
LONGEST_CHECK_INTERVAL = 30.0


class Lifecycle:
    """Moves instances through the table. Collects commands in `commands`; `launches` maps running launches, and
    `last_launch` is the number of the last one."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.launches: dict[int, Instance] = {}
        self.timed: dict[str, Instance] = {}
        self.last_launch = 0

    def start(self, instance: Instance, now: float) -> None:
        """Launch a process. From STOPPED, BACKOFF or FAILED."""
        before = instance.state
        self._move(instance, Trigger.START, now)
        self.last_launch += 1
        instance.launch = self.last_launch
        self.launches[instance.launch] = instance
        instance.was_ready = instance.out_of_memory = instance.draining = instance.needs_room = False
        instance.sleeping = False
        instance.ending = instance.pid = instance.message = instance.progress = instance.ailment = None
        instance.stopped_by = None
        instance.served_this_run, instance.free_since = 0, None
        timeout = instance.terms.start_timeout
        instance.deadline = None if timeout is None else now + timeout
        preset = instance.terms if isinstance(instance.terms, Preset) else None
        self.commands.append(Spawn(instance.name, instance.model, instance.launch, preset))
        self._announce(instance, "starting", before)

    def restore(self, timed: Iterable[Instance], instances: Iterable[Instance], last_launch: int) -> None:
        """Go on with instances that another program left in whatever state."""
        self.timed = {instance.name: instance for instance in timed}
        running = {instance.launch: instance for instance in instances if instance.launch is not None}
        self.launches = dict(sorted(running.items()))
        self.last_launch = last_launch

    def rename(self, instance: Instance, name: str) -> None:
        """Let go of a name, which another instance is to have."""
        if self.timed.pop(instance.name, None) is not None:
            self.timed[name] = instance
        instance.name = name

    def spawned(self, instance: Instance, pid: int, now: float) -> None:
        """The process is there; servers that can't notify are probed from now on."""
        instance.pid = pid
        if instance.state is State.STARTING and self._probed(instance):
            instance.probe_delay = FIRST_PROBE_DELAY
            instance.probe_at = now + instance.probe_delay

    def notified(self, instance: Instance, message: Notified, now: float) -> None:
        """What the server says of itself."""
        instance.out_of_memory |= message.out_of_memory
        if message.alive and instance.alive_by is not None and not self._probed(instance):
            instance.alive_by = now + self._watchdog(instance)
        if message.stuck and instance.state is State.READY:
            self._watchdog_bites(instance, now)
        if message.status is not None:
            instance.message = message.status
        if message.progress is not None and (instance.state is State.STARTING or instance.sleeping):
            self._loads(instance, message.progress)
        if message.sleeping is not None:
            self._sleeps(instance, message.sleeping)
        if message.ready and instance.state is State.STARTING:
            if self._probed(instance):
                instance.probe_at = now
            else:
                self._ready(instance, now)

    def _loads(self, instance: Instance, progress: float) -> None:
        wakes, instance.progress = instance.sleeping and instance.progress is None, progress
        if wakes:
            self._announce(instance, "wakes up", instance.state)
        self.commands.append(
            Announce(
                "progress",
                instance.model,
                f"{instance.name}: loading, {progress:.0%}",
                instance.name,
                state=instance.state,
                progress=progress,
                sleeping=instance.sleeping,
                launch=instance.launch,
            )
        )

    def _sleeps(self, instance: Instance, sleeping: bool) -> None:
        if instance.state is State.READY and sleeping is not instance.sleeping:
            instance.sleeping, instance.progress = sleeping, None
            self._announce(instance, "sleeps until somebody asks" if sleeping else "woke up", instance.state)

    def probe_due(self, instance: Instance) -> None:
        """Send the next probe, of readiness or of health; `probed` brings its answer."""
        instance.probe_at = None
        ready = instance.terms.ready if isinstance(instance.terms, Preset) else None
        assert instance.launch is not None
        self.commands.append(Probe(instance.launch, ready.http if isinstance(ready, HttpReady) else None))

    def probed(self, instance: Instance, answer: Probed, now: float) -> None:
        """A probe was answered: ready, or alive, or asked again a little later."""
        if instance.state is State.STARTING:
            if answer.healthy:
                self._ready(instance, now)
            else:
                instance.probe_delay = min(2 * instance.probe_delay, MAX_PROBE_DELAY)
                instance.probe_at = now + instance.probe_delay
        elif instance.state is State.READY and instance.alive_by is not None:
            watchdog = self._watchdog(instance)
            instance.ailment = answer.ailment
            if answer.healthy:
                instance.alive_by = now + watchdog
            longest = LONGEST_CHECK_INTERVAL if answer.healthy else MAX_PROBE_DELAY
            instance.probe_at = now + min(watchdog / 2, longest)

    def _watch(self, instance: Instance, now: float) -> None:
        """The watchdog starts, if the preset has one."""
        watchdog = self._watchdog(instance)
        if watchdog:
            instance.alive_by = now + watchdog
            if self._probed(instance):
                instance.probe_at = now + min(watchdog / 2, LONGEST_CHECK_INTERVAL)

    def stop(self, instance: Instance, why: EndReason, now: float, patience: float | None) -> None:
        """End the run because of `why`; running requests get `patience` seconds (None: all the time they need)."""
        if instance.state is State.BACKOFF:
            before = instance.state
            self._move(instance, Trigger.STOP, now)
            instance.deadline, instance.stopped_by = None, CALLED_OFF
            self._announce(instance, "restart called off", before)
        elif instance.state is State.STARTING or (instance.state is State.READY and not instance.leases):
            instance.ending = why
            self._terminate(instance, now)
        elif instance.state is State.READY:
            instance.ending = why
            if not instance.draining:
                requests = f"{len(instance.leases)} running request{'s'[: len(instance.leases) != 1]}"
                self._announce(instance, f"draining: {why.text}; waiting for {requests}", instance.state)
            instance.draining, instance.drain_before = True, 0.0
            if patience is not None:
                limit = now + patience
                instance.deadline = limit if instance.deadline is None else min(instance.deadline, limit)
        elif instance.state is State.STOPPING:
            instance.ending = why

    def abort(self, instance: Instance, why: EndReason, now: float) -> None:
        """End the process without waiting for anything."""
        instance.ending = why
        if instance.state is not State.STOPPING:
            self._terminate(instance, now)
        self._kill(instance, now)

    def _kill(self, instance: Instance, now: float) -> None:
        assert instance.launch is not None
        instance.deadline = now + KILL_AGAIN
        self.commands.append(Kill(instance.launch))

    def drained(self, instance: Instance, now: float) -> None:
        """The last request of a draining instance is over."""
        self._terminate(instance, now)

    def keep(self, instance: Instance) -> None:
        """Call off a drain: what it was to make room for is not needed any more."""
        instance.draining, instance.ending, instance.deadline = False, None, None
        self._announce(instance, "keeps running: the room is not needed any more", instance.state)

    def rest_or_work(self, model: Model, now: float) -> None:
        """A model that nobody uses may be unloaded after its idle_timeout; one in use may not."""
        serving = [replica for replica in model.replicas if replica.serves]
        if not serving or model.in_flight:
            model.idle_since = None
        elif model.idle_since is None:
            model.idle_since = now
        for replica in serving:
            assert isinstance(replica.terms, Preset)
            timeout = None if replica.terms.pinned else replica.terms.idle_timeout
            idle = model.idle_since is not None and timeout is not None
            replica.deadline = (model.idle_since or 0.0) + (timeout or 0.0) if idle else None

    def deadline_passed(self, instance: Instance, now: float) -> None:
        """Act on the deadline of the state the instance is in."""
        instance.deadline = None
        if instance.state is State.STARTING:
            limit = format_duration(instance.terms.start_timeout)
            instance.ending = EndReason(Kind.START_TIMEOUT, detail=limit, before_ready=True)
            self._terminate(instance, now)
        elif instance.state is State.READY:
            if not instance.draining:
                instance.ending = EndReason(Kind.IDLE)
            self._terminate(instance, now)
        elif instance.state is State.STOPPING:
            self._announce(instance, "still running after SIGTERM, sending SIGKILL", instance.state)
            self._kill(instance, now)
        elif instance.state is State.BACKOFF:
            instance.restarts += 1
            self.start(instance, now)

    def not_alive(self, instance: Instance, now: float) -> None:
        """The watchdog's time is over without a sign of life, or with none but bad ones."""
        instance.alive_by = None
        if instance.state is State.READY:
            self._watchdog_bites(instance, now)

    def _watchdog_bites(self, instance: Instance, now: float) -> None:
        limit = format_duration(getattr(instance.terms, "watchdog", None))
        if instance.ailment is not None:
            why = EndReason(Kind.UNHEALTHY, detail=f"{instance.ailment} for {limit}")
        else:
            why = EndReason(Kind.WATCHDOG, detail=limit)
        self.abort(instance, instance.ending or why, now)

    def ended(self, instance: Instance, seen: EndReason, now: float, *, more_room: bool = False) -> EndReason:
        """The process is gone: find the reason, then what follows by the restart policy. Returns the reason.

        A load that died of memory is tried once more after an eviction, if there is `more_room` to be made.
        """
        before = instance.state
        reason = replace(self._reason(instance, seen, now), launch=instance.launch)
        follows = verdict(instance.terms.restart, instance.failures, reason, now)
        if isinstance(instance.terms, WebTier) and not instance.ever_ready and not reason.intended:
            follows = replace(follows, trigger=Trigger.GIVE_UP)
        if reason.kind is Kind.OUT_OF_MEMORY and reason.before_ready:
            again = more_room and not instance.made_room and reason.detail is None  # other models don't use its limit
            follows = replace(follows, trigger=Trigger.ENDED if again else Trigger.GIVE_UP)
            instance.needs_room = instance.made_room = again
        launch = instance.launch
        assert launch is not None
        del self.launches[launch]
        instance.launch = instance.pid = instance.ending = instance.message = instance.progress = None
        instance.probe_at = instance.alive_by = instance.measured_at = None
        instance.draining = instance.sleeping = False
        instance.used, instance.used_shared = {}, {}
        instance.leases.clear()
        instance.reason = reason
        instance.failures = follows.failures
        self._move(instance, follows.trigger, now)
        instance.deadline = now + follows.delay if follows.trigger is Trigger.RETRY else None
        self._announce(instance, self._epitaph(instance, reason, follows), before, launch)
        return reason

    def reset(self, instance: Instance, now: float) -> None:
        """Forgive past failures."""
        instance.failures = ()
        instance.needs_room = instance.made_room = False
        if instance.state is State.FAILED:
            self._move(instance, Trigger.RESET, now)
            instance.stopped_by = RESET
            self._announce(instance, "failure reset", State.FAILED)

    def _ready(self, instance: Instance, now: float) -> None:
        took = now - instance.since
        self._move(instance, Trigger.READY, now)
        instance.was_ready = instance.ever_ready = True
        instance.made_room = False
        instance.deadline = instance.probe_at = instance.progress = None
        self._watch(instance, now)
        self._announce(instance, f"ready after {took:.1f} s", State.STARTING)

    def _terminate(self, instance: Instance, now: float) -> None:
        before = instance.state
        self._move(instance, Trigger.STOP, now)
        instance.probe_at = instance.alive_by = None
        instance.draining = False
        instance.deadline = now + instance.terms.stop_timeout
        assert instance.launch is not None and instance.ending is not None
        self.commands.append(Terminate(instance.launch))
        self._announce(instance, f"stopping: {instance.ending.text}", before)

    def _move(self, instance: Instance, trigger: Trigger, now: float) -> None:
        instance.state = next_state(instance.state, trigger)
        instance.since = now
        if instance.state in (State.STOPPED, State.FAILED):
            self.timed.pop(instance.name, None)
        else:
            self.timed[instance.name] = instance

    @staticmethod
    def _probed(instance: Instance) -> bool:
        return isinstance(instance.terms, Preset) and instance.terms.ready != "notify"

    @staticmethod
    def _watchdog(instance: Instance) -> float:
        """Seconds; 0 for none."""
        return getattr(instance.terms, "watchdog", None) or 0.0

    @staticmethod
    def _reason(instance: Instance, seen: EndReason, now: float) -> EndReason:
        """What was intended, where the end was; else what was seen."""
        if instance.ending is not None:
            lines = () if instance.ending.intended else seen.last_lines
            return replace(instance.ending, at=now, last_lines=lines)
        kind = Kind.OUT_OF_MEMORY if instance.out_of_memory else seen.kind
        return replace(seen, kind=kind, at=now, before_ready=not instance.was_ready)

    @staticmethod
    def _epitaph(instance: Instance, reason: EndReason, follows: Verdict) -> str:
        match follows.trigger:
            case Trigger.RETRY:
                when = f"in {format_duration(follows.delay)}" if follows.delay else "at once"
                limit = instance.terms.restart.limit
                turn = "" if instance.name == WEB else f" (failure {len(follows.failures)}, limit {limit})"
                return f"{reason.text}; starting again {when}{turn}"
            case Trigger.ENDED if instance.needs_room:
                return f"{reason.text}; another model is evicted, then it is tried once more"
            case Trigger.GIVE_UP:
                return f"failed: {reason.text}"
            case _:
                return f"stopped: {reason.text}"

    def _announce(self, instance: Instance, text: str, before: State, launch: int | None = None) -> None:
        self.commands.append(
            Announce(
                "state",
                instance.model,
                f"{instance.name}: {text}",
                instance.name,
                before=before,
                state=instance.state,
                reason=instance.reason if not instance.has_process else instance.ending,
                progress=instance.progress,
                sleeping=instance.sleeping,
                launch=launch or instance.launch,
            )
        )
