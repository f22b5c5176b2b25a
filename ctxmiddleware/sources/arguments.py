"""Whether a source can be built from the arguments that were given."""

from __future__ import annotations

from typing import Final

from ..option import Seconds
from ..project import address_faults
from ..secret import Secret
from .endpoint import key_faults, schema_faults

# For an hour Redis remembers when a user was invalidated.
REPLICA_LAG: Final = Seconds(
    "Seconds after an invalidation in which the primary is queried instead of the replica.",
    least=0,
    most=3600,
    variable="CTX_REPLICA_LAG",
)


def faults_of(*, url: object, key: Secret, schema: object, read_url: object, replica_lag: object) -> list[str]:
    """Return what is wrong with the arguments of a `SupabaseSource`, one sentence each and none with the key in it."""
    faults = address_faults("SUPABASE_URL", url) + key_faults(key) + schema_faults(schema)
    if read_url is not None:
        faults += address_faults("SUPABASE_READ_URL", read_url)
    return faults + REPLICA_LAG.faults("CTX_REPLICA_LAG", replica_lag)
