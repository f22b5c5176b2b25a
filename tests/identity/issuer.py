"""Somebody who issues tokens: with keys of each kind, and a server that publishes them."""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from starlette.types import Scope

from ctxmiddleware import Identity
from ctxmiddleware.identity.base import MaybeIdentity
from ctxmiddleware.identity.first_of import resolved
from ctxmiddleware.identity.jwt.bearer import BearerJWT

NOW: Final = 1_900_000_000.0
ADA: Final = "ada@example.org"
ISSUER: Final = "https://issuer.example"
SECRET: Final = "a secret of more than 32 bytes, for HS256"
CLAIMS: Final[Mapping[str, Any]] = {
    "email": ADA,
    "sub": "5f2c",
    "iss": ISSUER,
    "aud": "authenticated",
    "role": "authenticated",
    "iat": NOW - 10,
    "exp": NOW + 3600,
}

Private = ECKey | OKPKey | RSAKey | OctKey

EC: Final = ECKey.generate_key("P-256", {"kid": "ec"})
RSA: Final = RSAKey.generate_key(2048, {"kid": "rsa"})
ED: Final = OKPKey.generate_key("Ed25519", {"kid": "ed"})
# Somebody else's, of the same name as one of them.
MALLORY: Final = ECKey.generate_key("P-256", {"kid": "ec"})
OCT: Final = OctKey.import_key(SECRET)
ALGORITHMS: Final[Mapping[str, Private]] = {"ES256": EC, "RS256": RSA, "EdDSA": ED, "HS256": OCT}


def key_set(*keys: Private, **members: Any) -> dict[str, Any]:
    """Return the document that publishes keys, each with further members."""
    return {"keys": [{**key.as_dict(private=False), **members} for key in keys]}


def signed(
    key: Private = EC,
    algorithm: str = "ES256",
    *,
    header: Mapping[str, Any] | None = None,
    without: Iterable[str] = (),
    **claims: Any,
) -> str:
    """Return a token.

    Args:
        key: that signs it.
        algorithm: how.
        header: members of its header, in the place of those it would have.
        without: names of claims to leave out.
        **claims: in the place of those of `CLAIMS`.
    """
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if name not in without}
    members = {"typ": "JWT", "alg": algorithm, "kid": key.kid, **(header or {})}
    members = {name: value for name, value in members.items() if value is not None}
    registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EdDSA has another name by now, which few issuers use
        return jws.serialize_compact(members, json.dumps(body), key, registry=registry)


def raw(header: object, payload: object, signature: bytes = b"") -> str:
    """Return what looks like a token, with whatever somebody puts into it; texts are taken as JSON already."""
    return ".".join([_part(header), _part(payload), b64(signature)])


def b64(data: bytes) -> str:
    """Return bytes as tokens hold them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _part(value: object) -> str:
    if isinstance(value, bytes):
        return b64(value)
    return b64((value if isinstance(value, str) else json.dumps(value)).encode())


def asking(token: str | bytes, *more: str) -> Scope:
    """Return the scope of a request with a bearer token, or several."""
    tokens = [each if isinstance(each, bytes) else each.encode() for each in (token, *more)]
    return {"type": "http", "headers": [(b"authorization", b"Bearer " + each) for each in tokens]}


async def asked(bearer: BearerJWT, token: str | bytes) -> Identity | None:
    """Return whom a token names."""
    answer: MaybeIdentity = await resolved(bearer(asking(token)))
    return answer


def wall_clock() -> float:
    """Return the time at which the tokens here are good."""
    return NOW


@dataclass
class Publisher:
    """A server that publishes a document, and counts who asks for it.

    Args:
        port: where.
        body: what it answers with.
        status: and with which status.
        gate: what each answer waits for.
        drops: whether it hangs up instead of answering.
        leads_to: where it redirects to.
    """

    port: int
    body: bytes
    status: int = 200
    gate: anyio.Event | None = None
    fetches: int = 0
    drops: bool = False
    leads_to: str = ""
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the document is."""
        return f"http://127.0.0.1:{self.port}/keys"

    def publish(self, document: object) -> None:
        """Publish another document from now on."""
        self.body = document if isinstance(document, bytes) else json.dumps(document).encode()


@asynccontextmanager
async def publishing(document: object) -> AsyncIterator[Publisher]:
    """Publish a document on a free port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server = Publisher(listener.extra(SocketAttribute.local_port), b"")
    server.publish(document)

    async def serve(stream: ByteStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                request += await stream.receive()
            server.requests.append(request)
            server.fetches += 1
            if server.gate is not None:
                await server.gate.wait()
            if server.drops:
                return
            head = f"HTTP/1.1 {server.status} -\r\nconnection: close\r\ncontent-length: {len(server.body)}\r\n"
            head += f"location: {server.leads_to}\r\n\r\n" if server.leads_to else "\r\n"
            with suppress(anyio.BrokenResourceError):  # whoever has read enough
                await stream.send(head.encode() + server.body)

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield server
        tasks.cancel_scope.cancel()
