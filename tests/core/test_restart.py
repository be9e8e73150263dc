"""Restart arithmetic: a row for each branch, and what must hold for all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.preset import Restart
from supervisor.core.reasons import PERMANENT_EXIT_CODES, EndReason, Kind
from supervisor.core.restart import verdict
from supervisor.core.states import Trigger

CRASH = EndReason(Kind.KILLED, signal=11)
CRASH_EARLY = EndReason(Kind.EXITED, code=1, before_ready=True)
CLEAN = EndReason(Kind.EXITED, code=0)
CLEAN_EARLY = EndReason(Kind.EXITED, code=0, before_ready=True)
POLICY = Restart(delay=1.0, max_delay=10.0, limit=5, within=600.0)


@pytest.mark.parametrize(
    ("policy", "failures", "reason", "trigger", "delay"),
    [
        ("on-failure", (), CRASH, Trigger.RETRY, 0.0),
        ("on-failure", (), CRASH_EARLY, Trigger.RETRY, 1.0),
        ("on-failure", (90.0,), CRASH, Trigger.RETRY, 2.0),
        ("on-failure", (90.0, 91.0), CRASH, Trigger.RETRY, 4.0),
        ("on-failure", (90.0,) * 4, CRASH_EARLY, Trigger.RETRY, 10.0),
        ("on-failure", (90.0,) * 5, CRASH_EARLY, Trigger.GIVE_UP, 0.0),
        ("on-failure", (), CLEAN, Trigger.ENDED, 0.0),
        ("on-failure", (), CLEAN_EARLY, Trigger.RETRY, 1.0),
        ("on-failure", (90.0,) * 5, CLEAN, Trigger.GIVE_UP, 0.0),
        ("always", (), CLEAN, Trigger.RETRY, 0.0),
        ("no", (), CRASH, Trigger.GIVE_UP, 0.0),
        ("no", (), CLEAN, Trigger.ENDED, 0.0),
        ("always", (90.0,) * 5, EndReason(Kind.REQUESTED), Trigger.ENDED, 0.0),
        ("always", (), EndReason(Kind.CANNOT_START, detail="no such file"), Trigger.GIVE_UP, 0.0),
        ("on-failure", (), EndReason(Kind.START_TIMEOUT, before_ready=True), Trigger.RETRY, 1.0),
        ("on-failure", (), EndReason(Kind.WATCHDOG), Trigger.RETRY, 0.0),
        ("on-failure", (), EndReason(Kind.OUT_OF_MEMORY, before_ready=True), Trigger.RETRY, 1.0),
    ],
)
def test_verdict(policy: str, failures: tuple[float, ...], reason: EndReason, trigger: Trigger, delay: float) -> None:
    result = verdict(POLICY.model_copy(update={"policy": policy}), failures, reason, now=100.0)
    assert (result.trigger, result.delay) == (trigger, delay)


@pytest.mark.parametrize("code", sorted(PERMANENT_EXIT_CODES))
def test_exit_codes_that_retrying_cannot_mend_fail_at_once(code: int) -> None:
    assert verdict(POLICY, (), EndReason(Kind.EXITED, code=code, before_ready=True), 0.0).trigger is Trigger.GIVE_UP


def test_failures_older_than_the_window_do_not_count() -> None:
    result = verdict(POLICY, (0.0, 1.0, 2.0, 3.0, 500.0), CRASH, now=602.5)
    assert (result.failures, result.trigger, result.delay) == ((3.0, 500.0, 602.5), Trigger.RETRY, 4.0)


def test_a_limit_of_zero_allows_no_restart() -> None:
    assert verdict(Restart(limit=0), (), CRASH, 0.0).trigger is Trigger.GIVE_UP


@given(
    failures=st.lists(st.floats(0, 1e6), max_size=200).map(sorted).map(tuple),
    limit=st.integers(0, 2**31 - 1),
    delay=st.floats(0, 1e5),
    reason=st.sampled_from([CRASH, CRASH_EARLY, CLEAN, CLEAN_EARLY, EndReason(Kind.REQUESTED)]),
)
def test_delays_are_bounded_and_intended_ends_never_restart(
    failures: tuple[float, ...], limit: int, delay: float, reason: EndReason
) -> None:
    policy = Restart(delay=delay, max_delay=max(delay, 60.0), limit=limit, within=1e7)
    result = verdict(policy, failures, reason, now=1e6)
    assert 0 <= result.delay <= policy.max_delay
    assert result.trigger is Trigger.ENDED or not reason.intended
    if result.trigger is Trigger.RETRY:
        assert len(result.failures) <= limit
