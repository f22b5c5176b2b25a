"""How the functions that know everything are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from .addresses import quoted
from .endpoint import Server
from .exchange import Call
from .load import Question

FUNCTION: Final = "get_user_context_by_email"
BATCH_FUNCTION: Final = "get_user_contexts_by_emails"
BATCH_SIZE: Final = 100
# Longer addresses are cut off, or refused, by gateways.
LONGEST_URL: Final = 4096


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


def batch_call(emails: Sequence[str]) -> Question:
    """Return the question for many people's contexts, in the same two forms.

    Args:
        emails: the addresses, in any spelling; they are the keys of the answer.
    """

    def call(server: Server) -> Call:
        if server.reads_only:
            return _batch_read(server, emails)
        return server.post(f"rpc/{BATCH_FUNCTION}", {"p_emails": list(emails)})

    return call


def batches(server: Server, emails: Sequence[str]) -> Iterator[list[str]]:
    """Yield the addresses in pieces that one call of the batch function to this server may be for."""
    # Each address is measured once: encoding all of them anew for each kept the event loop for 5 ms a batch.
    none = len(_batch_read(server, []).url) if server.reads_only else 0
    piece: list[str] = []
    length = none
    for email in emails:
        more = len(_batch_read(server, [email]).url) - none + len(",") if server.reads_only else 0
        if piece and (len(piece) == BATCH_SIZE or length + more > LONGEST_URL):
            yield piece
            piece, length = [], none
        piece.append(email)
        length += more
    if piece:
        yield piece


def _batch_read(server: Server, emails: Sequence[str]) -> Call:
    # An array literal of PostgreSQL (its documentation, "Array Input and Output Syntax").
    return server.get(f"rpc/{BATCH_FUNCTION}", {"p_emails": "{" + ",".join(quoted(email) for email in emails) + "}"})
