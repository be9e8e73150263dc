"""The transition table: every state × trigger pair is in it or raises, and the picture in DESIGN.md is the table's."""

from pathlib import Path

import pytest

from supervisor.core.states import HAS_PROCESS, TRANSITIONS, State, Trigger, diagram, next_state

ALLOWED = {(state, trigger) for state, row in TRANSITIONS.items() for trigger in row}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("trigger", Trigger)
def test_every_pair_is_in_the_table_or_raises(state: State, trigger: Trigger) -> None:
    if (state, trigger) in ALLOWED:
        assert next_state(state, trigger) in State
    else:
        with pytest.raises(ValueError, match=f"cannot take '{trigger.value}' in state '{state.value}'"):
            next_state(state, trigger)


def test_a_process_appears_only_by_start_and_goes_only_by_an_end() -> None:
    for state, trigger in ALLOWED:
        before, after = state in HAS_PROCESS, next_state(state, trigger) in HAS_PROCESS
        assert after == before or trigger in {Trigger.START, Trigger.ENDED, Trigger.RETRY, Trigger.GIVE_UP}
        if trigger is Trigger.START:
            assert after and not before


def test_every_state_can_be_reached_and_left() -> None:
    assert {next_state(*pair) for pair in ALLOWED} == set(State)
    assert {state for state, _ in ALLOWED} == set(State)


def test_the_diagram_in_design_md_is_generated_from_the_table() -> None:
    design = Path(__file__).parents[2] / "supervisor" / "DESIGN.md"
    assert diagram() in design.read_text(), "run: python -c 'from supervisor.core.states import *; print(diagram())'"
