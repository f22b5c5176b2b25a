"""The targets of the fuzzer with inputs of Hypothesis: bounded, and with no fuzzer to be installed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .targets import SEEDS, TARGETS, LetIn, path


def _changed(seed: bytes) -> st.SearchStrategy[bytes]:
    """Return inputs that begin, or end, as a seed does."""
    places = st.integers(0, len(seed))
    return st.builds(
        lambda at, more, to: seed[:at] + more + seed[max(at, to) :], places, st.binary(max_size=12), places
    )


@pytest.mark.parametrize("name", TARGETS)
def test_nobody_is_let_in_and_no_error_is_another_s(name: str) -> None:
    """Whatever comes from outside: hundreds of inputs for each, some of them close to what is right."""
    runs = 0

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.one_of(st.binary(max_size=200), *map(_changed, SEEDS[name])))
    def run(data: bytes) -> None:
        nonlocal runs
        runs += 1
        TARGETS[name](data)

    run()
    assert runs >= 100


def test_a_target_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it would prove nothing."""
    monkeypatch.setattr("tests.fuzz.targets._PATHS", ("/app",))
    with pytest.raises(LetIn):
        path(b"/app/x")
