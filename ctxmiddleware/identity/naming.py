"""How a way to identify users names them: by e-mail addresses or by subjects, and of which tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from ..errors import ConfigurationError
from ..principal import KINDS, Kind, is_utf8


class Naming(NamedTuple):
    """What the identities of one way are keyed by.

    Args:
        kind: `"email"` or `"subject"`.
        tenant: the tenant of all its users; None where it was not stated.
        default: what stands in for a tenant that was not stated; None for the issuer that each token names.
    """

    kind: Kind
    tenant: str | None = None
    default: str | None = ""

    @property
    def is_of_any_issuer(self) -> bool:
        """Whether the tenant is whatever issuer a token names."""
        return self.tenant is None and self.default is None

    @property
    def effective_tenant(self) -> str | None:
        """The tenant of the users, None where each token says it."""
        return self.default if self.tenant is None else self.tenant


def check_naming(kind: str, tenant: object) -> list[str]:
    """Return what is wrong with the kind and the tenant of a way."""
    faults = []
    if kind not in KINDS:
        faults.append(f"kind was {kind!r}; allowed are 'email' and 'subject'")
    if tenant is not None and not isinstance(tenant, str):
        faults.append(f"tenant was {type(tenant).__name__}; it is a text")
    elif tenant is not None and not is_utf8(tenant):
        faults.append("tenant is not UTF-8 text")
    return faults


def namings_of(identify: object) -> Iterator[Naming]:
    """Yield how the users of a way are named, as far as it says so."""
    naming = getattr(identify, "naming", None)
    if isinstance(naming, Naming):
        yield naming
    for way in getattr(identify, "ways", ()):
        yield from namings_of(way)


def refuse_shared_subjects(ways: Iterable[object]) -> None:
    """Refuse ways that would take the equal subjects of two providers for one user.

    Two ways that state the same tenant say that their subjects are the same users.

    Raises:
        ConfigurationError: two ways give subjects of one tenant, and not both state it.
    """
    namings = [each for way in ways for each in namings_of(way) if each.kind == "subject"]
    for one, other in combinations(namings, 2):
        if one.tenant is not None and one.tenant == other.tenant:
            continue
        if _may_meet(one, other):
            raise ConfigurationError(
                "two ways of first_of give subjects that could be of one tenant: a subject is unique for one provider "
                "only, so state another tenant for each (the same one for both where they are the same users)"
            )


def _may_meet(one: Naming, other: Naming) -> bool:
    if one.is_of_any_issuer or other.is_of_any_issuer:
        return True
    return one.effective_tenant == other.effective_tenant
