"""How faults of a configuration are collected: all of them, in one error."""

from __future__ import annotations

import pytest

from ctxmiddleware import ConfigurationError, MissingExtra
from ctxmiddleware.faults import Faults


def _refuse(*faults: str) -> object:
    raise ConfigurationError(*faults)


def _missing() -> object:
    raise MissingExtra("joserfc", "jwt")


def test_a_missing_extra_alone_is_raised_as_it_is() -> None:
    """Its class and its cause say what to install."""
    faults = Faults()
    assert faults.built(_missing) is None
    with pytest.raises(MissingExtra):
        faults.refuse()


def test_a_missing_extra_among_other_faults_is_one_of_them() -> None:
    """The error names them all."""
    faults = Faults(["CTX_TTL is wrong"])
    faults.built(_missing)
    with pytest.raises(ConfigurationError) as raised:
        faults.refuse()
    assert not isinstance(raised.value, MissingExtra)
    assert raised.value.faults[0] == "CTX_TTL is wrong"
    assert "jwt" in raised.value.faults[1]


def test_each_fault_names_the_variable() -> None:
    """Where its sentence does not."""
    faults = Faults()
    assert faults.built(lambda: "built", variable="CTX_TTL") == "built"
    faults.refuse()
    faults.built(lambda: _refuse("too small", "too odd"), variable="CTX_TTL")
    with pytest.raises(ConfigurationError) as raised:
        faults.refuse()
    assert raised.value.faults == ("CTX_TTL: too small", "CTX_TTL: too odd")
