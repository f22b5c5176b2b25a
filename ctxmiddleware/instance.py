"""How an instance is named in reports, logs and Redis."""

from __future__ import annotations

import os
import secrets
import socket


def instance_name() -> str:
    """Return a name for this process that no other has, and that tells an operator which one it is."""
    host = socket.gethostname().encode("ascii", "replace").decode()[:64]
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"
