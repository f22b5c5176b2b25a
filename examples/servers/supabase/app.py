"""The process of the front: an ASGI app between clients and PostgREST."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import uvicorn

from .connections import CONTROL, Connections, counting_protocol
from .dialect import Asked, in_16, refused_by_16
from .faults import Fault, Faults
from .keys import Keys
from .upstream import Reply, Upstream

Dialect: TypeAlias = Literal["12", "16"]
SETTINGS = "FRONT_SETTINGS"
PREFIX = "/rest/v1"
_NO_KEY = {
    "message": "No API key found in request",
    "hint": "No `apikey` request header or url param was found.",
}
_WRONG_KEY = {
    "message": "Invalid API key",
    "hint": "Double check your Supabase `anon` or `service_role` API key.",
}
_NO_ROUTE = {"message": "no Route matched with those values"}
_NO_UPSTREAM = {"message": "An invalid response was received from the upstream server"}
_READ_ONLY = {
    "code": "25006",
    "details": None,
    "hint": None,
    "message": "cannot execute this request in a read-only transaction",
}


@dataclass(frozen=True)
class Settings:
    """What the front is told when it starts."""

    port: int
    upstream_host: str
    upstream_port: int
    dialect: Dialect
    read_only: bool
    keep_alive: int
    keys: Keys

    @classmethod
    def decoded(cls, raw: str) -> Settings:
        """Read them from the environment variable."""
        given = json.loads(raw)
        return cls(**given | {"keys": Keys(**given["keys"])})


class Front:
    """Supabase's gateway as an ASGI app.

    Args:
        settings: what it was told.
        connections: where its server counts connections.
    """

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections
        self._upstream = Upstream(settings.upstream_host, settings.upstream_port)
        self._faults = Faults()
        self._tokens = {
            settings.keys.service_role: None,
            settings.keys.anon: None,
            settings.keys.secret: settings.keys.service_role,
            settings.keys.publishable: settings.keys.anon,
        }
        self._reset()

    def _reset(self) -> None:
        self._requests: Counter[str] = Counter()
        self._refused = 0
        self._under_way = 0
        self._most_under_way = 0
        self._connections.reset()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        body = await _read(receive)
        if scope["path"].startswith(CONTROL):
            await _send(send, self._controlled(scope["path"].removeprefix(CONTROL), body))
            return
        self._connections.used(tuple(scope["client"]))
        self._requests[_kind(scope["path"])] += 1
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)
        try:
            await self._disturbed(scope, body, receive, send)
        finally:
            self._under_way -= 1

    async def _disturbed(self, scope: Any, body: bytes, receive: Any, send: Any) -> None:
        if self._faults.delay:
            await asyncio.sleep(self._faults.delay)
        target = scope["path"] + "?" + scope["query_string"].decode("latin-1")
        fault = self._faults.take(target)
        if fault is None:
            await _send(send, await self._answered(scope, body))
        elif fault.action == "answer":
            headers = [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
            await _send(send, Reply(fault.status, headers, fault.body.encode()))
        elif fault.action == "cut":
            await _send(send, await self._answered(scope, body), cut_after=fault.after)
            self._connections.open[tuple(scope["client"])].transport.close()
        else:
            if fault.action == "drop":
                self._connections.open[tuple(scope["client"])].transport.abort()
            while (await receive())["type"] != "http.disconnect":
                pass

    async def _answered(self, scope: Any, body: bytes) -> Reply:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        key = headers.pop("apikey", None)
        refusal = self._refusal(scope, key)
        if refusal is not None:
            self._refused += 1
            return refusal
        # A new key is no token: PostgREST gets the one it stands for, unless the caller brings a user's own.
        token = self._tokens.get(key or "")
        if token is not None:
            headers.setdefault("authorization", f"Bearer {token}")
        raw = (scope.get("raw_path") or scope["path"].encode()).removeprefix(PREFIX.encode())
        asked = Asked(scope["method"], scope["path"].removeprefix(PREFIX), headers, body)
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return await self._asked(asked, raw + query)

    def _refusal(self, scope: Any, key: str | None) -> Reply | None:
        if not scope["path"].startswith(PREFIX + "/"):
            return _json(404, _NO_ROUTE)
        if key is None:
            return _json(401, _NO_KEY)
        if key not in self._tokens:
            return _json(401, _WRONG_KEY)
        if self._settings.read_only and scope["method"] not in ("GET", "HEAD"):
            return _json(405, _READ_ONLY)
        return None

    async def _asked(self, asked: Asked, target: bytes) -> Reply:
        modern = self._settings.dialect == "16"
        if modern and (refusal := refused_by_16(asked)):
            return refusal
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in asked.headers.items()]
        try:
            reply = await self._upstream.ask(asked.method, target, headers, asked.body)
        except (OSError, EOFError):
            return _json(502, _NO_UPSTREAM)
        return in_16(asked, reply) if modern else reply

    def _controlled(self, order: str, body: bytes) -> Reply:
        given = json.loads(body or b"{}")
        if order == "/counts":
            return _json(200, self._counts())
        if order == "/reset":
            self._reset()
            self._faults.clear()
        elif order == "/fault":
            self._faults.order(Fault(**given))
        elif order == "/delay":
            self._faults.delay = given["seconds"]
        else:
            return _json(404, _NO_ROUTE)
        return _json(200, {})

    def _counts(self) -> dict[str, object]:
        return {
            "kinds": self._requests,
            "refused": self._refused,
            "most_under_way": self._most_under_way,
            "connections": len(self._connections.open),
            "most_connections": self._connections.most,
            "connections_opened": self._connections.opened,
            "oldest_used_connection": self._connections.oldest_used,
        }


def _kind(path: str) -> str:
    name = path.removeprefix(PREFIX).strip("/")
    return f"rpc:{name.removeprefix('rpc/')}" if name.startswith("rpc/") else f"table:{name}"


def _json(status: int, content: object) -> Reply:
    return Reply(status, [(b"content-type", b"application/json; charset=utf-8")], json.dumps(content).encode())


async def _read(receive: Any) -> bytes:
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body


async def _send(send: Any, reply: Reply, *, cut_after: int | None = None) -> None:
    # Where there is no body, as after HEAD, its length is not ours to tell.
    length = [(b"content-length", b"%d" % len(reply.body))] if reply.body else []
    headers = [(name.lower(), value) for name, value in reply.headers] + length
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body[:cut_after], "more_body": cut_after is not None})


def main() -> None:
    """Serve until the process is told to end."""
    settings = Settings.decoded(os.environ[SETTINGS])
    connections = Connections()
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(
            Front(settings, connections),
            host="127.0.0.1",
            port=settings.port,
            http=counting_protocol(connections),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=settings.keep_alive,
            timeout_graceful_shutdown=1,
        )


if __name__ == "__main__":
    main()
