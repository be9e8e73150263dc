"""Restart arithmetic: whether and when an instance that ended by itself is started again."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.preset import Restart
from supervisor.core.reasons import EndReason
from supervisor.core.states import Trigger

MAX_DOUBLINGS = 60


@dataclass(frozen=True)
class Verdict:
    """What follows an end: ENDED, GIVE_UP, or RETRY after `delay` seconds; and the failures that still count."""

    trigger: Trigger
    failures: tuple[float, ...]
    delay: float = 0.0


def verdict(policy: Restart, failures: tuple[float, ...], reason: EndReason, now: float) -> Verdict:
    """Decide what follows the end `reason` of a run. `failures` are the times of earlier ones.

    1. An end somebody intended is final and counts for nothing.
    2. A failure that starting again can't mend is final.
    3. Unasked ends within the policy's window are counted; more than its limit is final. A clean exit counts as well,
       or a server that exits at once would be started for ever by the requests that wait for it.
    4. A clean exit ends the run unless the policy is "always"; a failure is final if it is "no".
    5. The first failure of a server that had been ready is repaired at once: it worked, and requests may be waiting.
       Others wait `delay`, doubled each time up to `max_delay`.
    """
    if reason.intended:  # 1
        return Verdict(Trigger.ENDED, failures)
    if reason.permanent:  # 2
        return Verdict(Trigger.GIVE_UP, (*failures, now))
    counted = (*(at for at in failures if policy.within is None or now - at < policy.within), now)
    if len(counted) > policy.limit:  # 3
        return Verdict(Trigger.GIVE_UP, counted)
    if not reason.failure and policy.policy != "always":  # 4
        return Verdict(Trigger.ENDED, counted)
    if policy.policy == "no":
        return Verdict(Trigger.GIVE_UP, counted)
    if len(counted) == 1 and not reason.before_ready:  # 5
        return Verdict(Trigger.RETRY, counted)
    doublings = min(len(counted) - 1, MAX_DOUBLINGS)
    return Verdict(Trigger.RETRY, counted, min(policy.max_delay, policy.delay * 2**doublings))
