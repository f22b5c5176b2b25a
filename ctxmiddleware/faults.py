"""Gathering all that is wrong, so that it is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from .errors import ConfigurationError, MissingExtra

R = TypeVar("R")


class Faults:
    """What is wrong so far; each part that cannot be built adds to it.

    Args:
        faults: what is known to be wrong already, one sentence each.
    """

    def __init__(self, faults: Iterable[str] = ()) -> None:
        self._faults = list(faults)
        self._missing: MissingExtra | None = None

    def add(self, *faults: str) -> None:
        """Add sentences."""
        self._faults += faults

    def built(self, make: Callable[[], R], *, variable: str = "") -> R | None:
        """Return what is made, or None where it is refused; the reasons are kept.

        Args:
            make: builds a part.
            variable: what the reasons are to name, where they do not by themselves.
        """
        try:
            return make()
        except ConfigurationError as error:
            self.add(*(f"{variable}: {fault}" if variable else fault for fault in error.faults))
            if isinstance(error, MissingExtra):
                self._missing = error
        return None

    def refuse(self) -> None:
        """Return where nothing is wrong.

        Raises:
            MissingExtra: nothing else is wrong.
            ConfigurationError: something is; the message tells it all.
        """
        if self._missing is not None and len(self._faults) == 1:
            raise self._missing
        if self._faults:
            raise ConfigurationError(*self._faults)
