"""One declaration of each option: its range holds in code, in the environment and in the words of the error."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from ctxmiddleware import (
    BearerJWT,
    CachePolicy,
    ConfigurationError,
    ContextPlugin,
    PoolOptions,
    RedisOptions,
    SupabaseSource,
)
from ctxmiddleware.environment import read
from ctxmiddleware.option import Count, Option, Seconds, Share, check_options, declared
from ctxmiddleware.settings import Settings, variables

CLASSES: dict[str, Any] = {"policy": CachePolicy, "redis_options": RedisOptions, "pool": PoolOptions}


@pytest.mark.parametrize(
    ("option", "allowed", "inside", "outside"),
    [
        (Seconds("", over=0), "a number of seconds over 0", [1e-9, 1, 1e300], [0, -1, math.inf, math.nan]),
        (Seconds("", over=0, most=31_536_000), "a number of seconds over 0, 31536000 at most", [31_536_000], [4e7]),
        (Seconds("", least=0.001), "a number of seconds, 0.001 or more", [0.001], [0.0009, math.inf]),
        (Seconds("", least=0, most=900), "a number of seconds from 0 to 900", [0, 900], [-1, 901]),
        (Share("", least=0, below=1), "a share from 0 to less than 1", [0, 0.99], [1, -0.1]),
        (Count("", least=1), "a whole number, 1 or more", [1, 10**30], [0, 1.0, math.inf]),
    ],
)  # fmt: skip
def test_the_bounds_are_the_words(option: Option, allowed: str, inside: list[float], outside: list[float]) -> None:
    """An included bound is a value, and an excluded one is not; a bool, a text and None are no numbers."""
    assert option.allowed == allowed
    assert all(option.takes(value) for value in inside)
    for value in [*outside, True, "1", None, b"1", [1]]:
        assert not option.takes(value)
        (fault,) = option.faults("name", value)
        assert fault.startswith("name was ")
        assert fault.endswith(f", must be {allowed}")


@pytest.mark.parametrize("value", ["sb_secret_HUNTER2", b"HUNTER2", ["HUNTER2"], "HUNTER2" * 20])
def test_a_key_in_the_place_of_a_number_is_not_shown(value: object) -> None:
    """The error names the type, or that the value is not shown."""
    assert "HUNTER2" not in str(Seconds("", over=0).faults("name", value))


VALUES = ["-1", "0", "0.0005", "0.5", "0.9", "0.95", "1", "1.5", "2", "900", "901", "31536000", "31536001", "1e300"]


@pytest.mark.parametrize("variable", [each for each in variables() if each.group], ids=lambda each: each.rule.variable)
@pytest.mark.parametrize("text", VALUES)
def test_a_variable_takes_what_its_option_takes(variable: Any, text: str) -> None:
    """The same values, with the same range in the error."""
    name = variable.rule.variable
    faults = [fault for fault in read({name: text}).faults if fault.startswith(f"{name} held")]
    value = int(text) if text.lstrip("-").isdigit() else float(text)
    try:
        expected = CLASSES[variable.group](**{variable.name: value})
    except ConfigurationError as error:
        (fault,) = error.faults
        assert f"must be {variable.rule.allowed}" in fault
        assert faults == [f"{name} held '{text}'; allowed is {variable.rule.allowed}"]
    else:
        assert faults == []
        assert getattr(read({name: text}).settings, variable.group) == expected


@pytest.mark.parametrize("function", [SupabaseSource, BearerJWT, ContextPlugin], ids=lambda each: each.__name__)
def test_the_default_of_a_variable_is_that_of_its_argument(function: Callable[..., object]) -> None:
    """Whether the environment or the code leaves it out."""
    names = {
        "schema": "supabase_schema",
        "audience": "jwt_audience",
        "replica_lag": "replica_lag",
        "zones_ttl": "zones_ttl",
    }
    settings = Settings()
    given = {name: each.default for name, each in inspect.signature(function).parameters.items() if name in names}
    assert given
    assert given == {name: getattr(settings, names[name]) for name in given}


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_the_docstring_lists_every_option(kind: Any) -> None:
    """Each with its sentence and its range, which begins with its unit."""
    assert declared(kind)
    for each in declared(kind):
        assert f"\n    {each.name}: {each.option.meaning} Allowed: {each.option.allowed}.\n" in kind.__doc__
        assert each.option.takes(each.default) or each.default is None


def test_a_subclass_may_have_fields_of_its_own() -> None:
    """They are no options; those of its base are checked."""

    @dataclass(frozen=True)
    class Own(CachePolicy):
        note: str = ""

    assert Own(note="x").note == "x"
    with pytest.raises(ConfigurationError, match=r"^Own\.ttl was 0, must be "):
        Own(ttl=0)


def test_an_option_without_a_default_takes_none() -> None:
    """And one with a default does not."""
    check_options(CachePolicy(stale_untrusted_for=None))
    with pytest.raises(ConfigurationError, match=r"^CachePolicy\.ttl was None, must be a number of seconds over 0"):
        CachePolicy(ttl=None)  # type: ignore[arg-type]  # the fault tested
