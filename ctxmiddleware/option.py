"""How an option is declared: its field gives default, range, environment variable and sentence, once for every use."""

from __future__ import annotations

import math
import re
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeVar

from .errors import ConfigurationError
from .shown import shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

K = TypeVar("K", bound="DataclassInstance")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Option:
    """A number that users may set.

    Args:
        meaning: one sentence that begins with the unit.
        over: the lower bound, itself excluded.
        least: the lower bound, itself included.
        below: the upper bound, itself excluded; by default every finite number is allowed.
        most: the upper bound, itself included.
        variable: the environment variable that sets it; empty for one named after the field, None for none.
        way_out: what an error adds about a value out of the range.
    """

    meaning: str
    _: KW_ONLY
    over: float = -math.inf
    least: float = -math.inf
    below: float = math.inf
    most: float = math.inf
    variable: str | None = ""
    way_out: str = ""

    noun: ClassVar[str] = "a number"
    kinds: ClassVar[tuple[type[float], ...]] = (int, float)
    # `float` and `int` also take underscores and the digits of every script, which readers may take for other numbers.
    form: ClassVar[re.Pattern[str]] = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

    def default(self, value: V) -> V:
        """Return the field of a dataclass that declares the option; one whose default is None takes None."""
        return field(default=value, metadata={"option": self})

    @property
    def allowed(self) -> str:
        """The range in words."""
        if self.least == -math.inf:
            end = f", {self.most:.15g} at most" if self.most < math.inf else ""
            return f"{self.noun} over {self.over:.15g}{end}"
        if min(self.below, self.most) == math.inf:
            return f"{self.noun}, {self.least:.15g} or more"
        end = f"{self.most:.15g}" if self.most < math.inf else f"less than {self.below:.15g}"
        return f"{self.noun} from {self.least:.15g} to {end}"

    def takes(self, value: object) -> bool:
        """Return whether a value is such a number."""
        if not isinstance(value, self.kinds) or isinstance(value, bool):
            return False
        return self.over < value < self.below and self.least <= value <= self.most

    def faults(self, name: str, value: object) -> list[str]:
        """Return what is wrong with a value, in a sentence that begins with its name."""
        if self.takes(value):
            return []
        end = f": {self.way_out}" if self.way_out else ""
        return [f"{name} was {_told(value)}, must be {self.allowed}{end}"]

    def read(self, text: str) -> float:
        """Return the number that the text of a variable stands for.

        Raises:
            ValueError: it stands for none that is allowed.
        """
        value = self.kinds[-1](text) if self.form.fullmatch(text) else math.nan
        if not self.takes(value):
            raise ValueError(text)
        return value


class Seconds(Option):
    """A time."""

    __slots__ = ()
    noun = "a number of seconds"


class Share(Option):
    """A part of a whole."""

    __slots__ = ()
    noun = "a share"


class Count(Option):
    """A number of things."""

    __slots__ = ()
    noun = "a whole number"
    kinds = (int,)
    form = re.compile(r"[0-9]+")


class Declared(NamedTuple):
    """An option with the name of its field and its default."""

    name: str
    option: Option
    default: object


def declared(kind: type[DataclassInstance]) -> list[Declared]:
    """Return the options that the fields of a class declare."""
    # A subclass may have fields that are no options.
    found = [each for each in fields(kind) if "option" in each.metadata]
    return [Declared(each.name, each.metadata["option"], each.default) for each in found]


def documented(kind: type[K]) -> type[K]:
    """List the options of a class in its docstring."""
    lines = [f"    {each.name}: {each.option.meaning} Allowed: {each.option.allowed}." for each in declared(kind)]
    raised = "\nRaises:\n    ConfigurationError: one or more are out of their ranges; the message names each."
    kind.__doc__ = "\n".join([kind.__doc__ or "", "\nArgs:", *lines, raised])
    return kind


def check_options(given: DataclassInstance) -> None:
    """Check each option of an instance.

    Raises:
        ConfigurationError: one or more are out of their ranges; the message names each.
    """
    kind, faults = type(given), []
    for name, option, default in declared(kind):
        value = getattr(given, name)
        if value is not None or default is not None:
            faults += option.faults(f"{kind.__name__}.{name}", value)
    if faults:
        raise ConfigurationError(*faults)


def _told(value: object) -> str:
    if value is None or isinstance(value, (int, float)):
        return repr(value)
    # Of other values the type alone: a key may stand in the wrong place.
    return shown(value) if isinstance(value, str) else f"of type {type(value).__name__}"
