"""How an instance is named in reports, logs and Redis."""

from __future__ import annotations

import os
import secrets
import socket


def instance_name() -> str:
    """Return a name of this process that is unique and identifies it to an operator."""
    host = socket.gethostname().encode("ascii", "replace").decode()[:64]
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"
