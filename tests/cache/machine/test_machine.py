"""A short run of the machine; the bench session lets it run long."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.matrix import Cases

from .guards import FINDINGS, GUARDS, PACKAGE, Guard
from .machine import TOTAL, Machine
from .model import KEYS


def test_no_order_of_events_breaks_a_promise(cases: Cases) -> None:
    """Nobody gets another's context, an invalidation is final, one load a user, and nobody harms another."""
    examples, steps = (300, 50) if cases is Cases.FULL else (80, 40)
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for event in ("served by memory", "served by redis", "served by db", "served stale", "invalidations"):
        assert TOTAL[event] > 20, f"the machine hardly ever saw: {event}"


@pytest.mark.parametrize("registers", [False, True], ids=["asks again", "is listed before the answer"])
@pytest.mark.parametrize("instance", [0, 1])
def test_a_look_up_that_an_unlisted_instance_began_answers_its_own_callers_only(
    instance: int, *, registers: bool
) -> None:
    """The user was invalidated since: a caller that came after that looks again, and memory is not trusted."""
    machine = Machine()
    machine.choose(in_steps=False)
    machine.look_up_in_no_list(instance=instance, key=KEYS[0], seed=0, registers=registers, stored=True)
    machine.promises()
    machine.teardown()


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_each_guard_is_where_its_finding_says(guard: Guard) -> None:
    """What was removed once to see that the machine finds it still stands there, and its finding is written down."""
    assert (PACKAGE / guard.file).read_text(encoding="utf-8").count(guard.text) == 1
    line = next(
        line for line in FINDINGS.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {guard.name} |")
    )
    assert "after" in line
    assert "not found" not in line
