"""How the one function that knows everything is called."""

from __future__ import annotations

from typing import Final

from .endpoint import Server
from .exchange import Call
from .load import Question

FUNCTION: Final = "get_user_context_by_email"


def function_call(email: str) -> Question:
    """Return the question for one person's context: posted to a primary, read from a replica, which takes GET only.

    Args:
        email: the address, in any spelling: the function normalises it.
    """

    def call(server: Server) -> Call:
        arguments = {"p_email": email}
        if server.reads_only:
            return server.get(f"rpc/{FUNCTION}", arguments)
        # Posted, because addresses in URLs end up in access logs.
        return server.post(f"rpc/{FUNCTION}", arguments)

    return call
