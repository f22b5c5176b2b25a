"""Whether a source can be built from the arguments that were given."""

from __future__ import annotations

from typing import Final

from ..option import Seconds
from ..project import address_faults
from ..secret import Secret
from .endpoint import key_faults, schema_faults
from .pool import PoolOptions

_CLIENTS: Final = "an httpx2.AsyncClient or an httpx.AsyncClient"
# For an hour Redis remembers when a user was invalidated.
REPLICA_LAG: Final = Seconds(
    "Seconds after an invalidation in which the primary is queried instead of the replica.", least=0, most=3600
)


def faults_of(
    *, url: object, key: Secret, schema: object, read_url: object, pool: object, client: object, replica_lag: object
) -> list[str]:
    """Return what is wrong with the arguments of a `SupabaseSource`, one sentence each and none with the key in it."""
    faults = address_faults("SUPABASE_URL", url) + key_faults(key) + schema_faults(schema)
    if read_url is not None:
        faults += address_faults("SUPABASE_READ_URL", read_url)
    if pool is not None and not isinstance(pool, PoolOptions):
        faults.append(f"pool is {_kind(pool)}: it must be a PoolOptions")
    return faults + _client_faults(client) + REPLICA_LAG.faults("CTX_REPLICA_LAG", replica_lag)


def _client_faults(client: object) -> list[str]:
    # A client for programs without an event loop has the same methods, and would fail at the first load only.
    blocking = hasattr(client, "__enter__") and not hasattr(client, "__aenter__")
    if client is None or (not isinstance(client, type) and callable(getattr(client, "stream", None)) and not blocking):
        return []
    return [f"client is {_kind(client)}: it must be {_CLIENTS}"]


def _kind(value: object) -> str:
    # Never the value: it may be a key that was put in the wrong place.
    return f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
