"""What a forked process does first: each registered object begins anew there, whatever the others do."""

from __future__ import annotations

import os

import pytest

from ctxmiddleware import forking


class Registered:
    """An object that begins anew, or cannot."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun, self.failure = 0, failure
        forking.register(self)

    def begin_anew(self) -> None:
        """Note it, or fail."""
        self.begun += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have registered is of this process, and stays what it is."""
    monkeypatch.setattr(forking, "_registered", type(forking._registered)())
    monkeypatch.setattr(forking, "_forks", forking._forks)


def test_one_that_fails_keeps_no_other_from_beginning_anew() -> None:
    """All failures are raised afterwards: a process with another's state must not go on in silence."""
    failures = [ValueError("one"), OSError("two")]
    all_of_them = [Registered(), *map(Registered, failures), Registered()]
    with pytest.raises(ExceptionGroup, match="could not begin anew") as raised:
        forking._in_child()
    assert [one.begun for one in all_of_them] == [1, 1, 1, 1]
    assert sorted(map(str, raised.value.exceptions)) == ["one", "two"]


def test_one_that_is_gone_is_not_kept() -> None:
    """The registry holds its objects weakly."""
    kept = Registered()
    Registered()
    assert list(forking._registered) == [kept]


def test_what_one_process_has_claimed_its_child_does_not_use() -> None:
    """What was never claimed is the child's as well as the parent's."""
    claimed, free = forking.OneProcess(), forking.OneProcess()
    assert claimed.claim()
    assert claimed.claim()
    forking._in_child()
    assert not claimed.claim()
    assert free.claim()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_it_happens_in_the_child_and_not_in_the_parent() -> None:
    """Before the child runs anything else."""
    one, before = Registered(), forking.epoch()
    child = os.fork()
    if not child:
        os._exit(0 if (one.begun, forking.epoch()) == (1, before + 1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (one.begun, forking.epoch()) == (0, before)
