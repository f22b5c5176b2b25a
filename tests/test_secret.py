"""Whether a secret hides wherever it might be printed."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import pytest

from ctxmiddleware.secret import Secret

SECRET = Secret("hunter2-long-enough")


def test_shows_itself_to_reveal_only() -> None:
    """Repr, str, every way to format, and what holds it print a mask."""
    shown = [repr(SECRET), str(SECRET), f"{SECRET}", f"{SECRET!r}", "%s %r" % (SECRET, SECRET), repr({"key": [SECRET]})]  # noqa: UP031 - one of the ways
    assert not any("hunter2" in each for each in shown)
    assert SECRET.reveal() == "hunter2-long-enough"


def test_holds_no_attribute_that_prints_it() -> None:
    """Tools that print the attributes of what they meet find none that is the value."""
    assert not hasattr(SECRET, "__dict__")
    assert "hunter2" not in repr([getattr(SECRET, name, None) for name in dir(SECRET)])


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, lambda it: f"{it:>30}"])
def test_refuses_to_travel(leak: object) -> None:
    """It is not pickled, copied or serialised, and the refusal does not print it."""
    assert callable(leak)
    with pytest.raises(TypeError) as told:
        leak(SECRET)
    assert "hunter2" not in "".join(traceback.format_exception(told.value))


def test_is_not_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    """A log record that was given a secret prints the mask."""
    logging.getLogger("ctxmiddleware").warning("with %s", SECRET, extra={"secret": SECRET})
    assert "hunter2" not in caplog.text
    assert "**" in caplog.text


def test_compares_by_what_it_hides() -> None:
    """Two secrets of one value are equal and hash alike; a plain string is none, and an empty one is false."""
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a")
    assert not Secret("")
