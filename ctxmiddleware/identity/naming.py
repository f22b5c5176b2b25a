"""How a way to identify users names them: by e-mail addresses or by subjects, and of which tenant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..errors import ConfigurationError
from ..principal import KINDS, Kind

ANY_ISSUER: Final = "the token's issuer"


class Naming(NamedTuple):
    """What the identities of one way are keyed by.

    Args:
        kind: `"email"` or `"subject"`.
        tenant: the tenant of all its users; None where it was not stated.
        default: what stands in for a tenant that was not stated.
    """

    kind: Kind
    tenant: str | None = None
    default: str = ""


def check_naming(kind: str, tenant: object) -> list[str]:
    """Return what is wrong with the kind and the tenant of a way."""
    faults = []
    if kind not in KINDS:
        faults.append(f"kind was {kind!r}; allowed are 'email' and 'subject'")
    if tenant is not None and not isinstance(tenant, str):
        faults.append(f"tenant was {type(tenant).__name__}; it is a text")
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

    Raises:
        ConfigurationError: two ways give subjects, and neither says of which tenant.
    """
    seen: set[str] = set()
    for naming in (each for way in ways for each in namings_of(way)):
        if naming.kind != "subject" or naming.tenant is not None:
            continue
        if naming.default in seen:
            whose = f"of {naming.default!r}" if naming.default else "of no tenant"
            raise ConfigurationError(
                f"two ways of first_of give subjects {whose}: a subject is unique for one provider only, so state the "
                "tenant of each (the same one where they are the same users)"
            )
        seen.add(naming.default)
