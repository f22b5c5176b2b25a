"""How these tests speak to a server: one request, one connection, nothing in between."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.matrix import in_full

# What the front does by itself is the same in both dialects.
newer_dialect = pytest.mark.parametrize("dialect", ["16", in_full("12")], indirect=True, scope="session")


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for known, value in self.headers if known.lower() == name.lower()]


def ask(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: object = None
) -> Answer:
    """Send one request over a connection of its own; a body that is not None is sent as JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    sent = dict(headers or {})
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        reply = connection.getresponse()
        return Answer(reply.status, reply.getheaders(), reply.read())
    finally:
        connection.close()
