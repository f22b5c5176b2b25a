"""What is fuzzed: each target takes bytes, must let nobody in, and must raise nothing but errors of ours."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.types import Message, Scope

from ctxmiddleware import BearerJWT, BearerToken, TrustedHeader, UserContext, UserContextMiddleware
from ctxmiddleware.admin.app import AdminApp
from ctxmiddleware.admin.attempts import Attempts
from ctxmiddleware.cache.base import Fence, Stored
from ctxmiddleware.cache.redis.codec import Codec, NoValue
from ctxmiddleware.cache.redis.seal import Seal
from ctxmiddleware.errors import ContextError, SourceError
from ctxmiddleware.identity.first_of import resolved
from ctxmiddleware.identity.jwt.keys import published
from ctxmiddleware.routing import checked_paths, is_excluded
from ctxmiddleware.secret import Secret
from ctxmiddleware.sources.answers import classify
from ctxmiddleware.sources.rows import context_from, contexts_from

from ..asgi import http_scope, websocket_scope
from ..identity.issuer import ISSUER, SECRET, signed, wall_clock
from ..people import ADA, TOKEN, context_of, plugin_of

Target = Callable[[bytes], None]

_BEARER: Final = BearerJWT(secret=SECRET, issuer=ISSUER, wall_clock=wall_clock, on_bad="refuse")
_HEADER: Final = TrustedHeader("x-forwarded-email", peers=["10.0.0.7"], through=["10.1.0.0/24"], on_bad="refuse")
_SUBJECT: Final = TrustedHeader("x-subject", peers=["10.0.0.7"], kind="subject", on_bad="refuse")
_PLUGIN: Final = plugin_of()
_PATHS: Final = checked_paths(["/health", "/static"])
_CODEC: Final[Codec[UserContext]] = Codec(UserContext)
_KEY: Final = Secret(base64.b64encode(bytes(range(32))).decode())
_SEALED: Final[Codec[UserContext]] = Codec(UserContext, seal=Seal([_KEY]))
_FENCE: Final = Fence(b"everyone", b"name")
_STORED: Final = Stored(context_of("bob"), "db", 1.0)
_OF_BOB: Final = _CODEC.pack(("", "bob"), _FENCE, _STORED, 1000, redis_key="key") or b""


class LetIn(AssertionError):
    """Somebody was let in, or nobody answered."""


def token(data: bytes) -> None:
    """A bearer token: nobody signed it, so it names nobody."""
    scope: Scope = {"type": "http", "headers": [(b"authorization", b"Bearer " + data)]}
    try:
        if asyncio.run(_resolved(scope)) is not None:
            raise LetIn(data)
    except ContextError:
        return


async def _resolved(scope: Scope) -> object:
    return await resolved(_BEARER(scope))


def claims(data: bytes) -> None:
    """The three parts of a token, of which the signature is another token's."""
    head, _, body = data.partition(b"|")
    parts = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in (head, body)]
    token(".".join([*parts, signed().rpartition(".")[2]]).encode())


def keys(data: bytes) -> None:
    """A published key set."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        published(document)
    except ValueError:
        return


def header(data: bytes) -> None:
    """The headers, and the peer, of a request that no listed proxy has sent."""
    value, _, rest = data.partition(b"|")
    peer, _, chain = rest.partition(b"|")
    client = (peer.decode("latin-1"), 1)
    scope: Scope = {
        "type": "http",
        "headers": [(b"x-forwarded-email", value), (b"x-subject", value), (b"x-forwarded-for", chain)],
        "client": client,
    }
    trusted = client[0].strip() in ("10.0.0.7", "::ffff:10.0.0.7") or b"10.0.0.7" in chain or b"a00" in peer + chain
    for identify in (_HEADER, _SUBJECT):
        try:
            if identify(scope) is not None and not trusted:
                raise LetIn(data)
        except ContextError:
            continue


def path(data: bytes) -> None:
    """A path: what is excluded is what lies below an excluded path, as every app reads it."""
    text = data.decode("utf-8", "replace")
    if is_excluded({"path": text}, _PATHS) and not text.startswith(("/health", "/static")):
        raise LetIn(data)
    if ".." in text.replace("\\", "/").split("/")[2:] and is_excluded({"path": text}, _PATHS):
        raise LetIn(data)


def request(data: bytes) -> None:
    """A request of somebody who has no context, on a path that is not excluded."""
    where, _, rest = data.partition(b"|")
    names = [tuple(line.partition(b":")[::2]) for line in rest.split(b"\n")]
    headers = [(name.lower(), value) for name, value in names if name.lower() != b"x-user"]
    sent = asyncio.run(_answers(f"/app/{where.decode('utf-8', 'replace')}", headers))
    if sent[0].get("status") != 401:
        raise LetIn(data)


async def _answers(path: str, headers: list[tuple[bytes, bytes]]) -> list[Message]:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise LetIn(path)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = UserContextMiddleware(app, plugin=_PLUGIN, required=True, exclude=["/health"])
    await middleware({**http_scope(path), "headers": headers}, _nothing, send)
    extensions: dict[str, object] = {"websocket.http.response": {}}
    await middleware({**websocket_scope(path), "headers": headers, "extensions": extensions}, _nothing, send)
    return sent


async def _nothing() -> Message:
    raise AssertionError("receive was called")


def value(data: bytes) -> None:
    """Bytes of Redis: a context only if they were packed for this very key."""
    for codec in (_CODEC, _SEALED):
        found = codec.unpack(data, ("", ADA), _FENCE, 1000, redis_key="key")
        if not isinstance(found, NoValue) and found.value is not None and found.value.email != ADA:
            raise LetIn(data)
        codec.owner(data, redis_key="key")
    if not isinstance(_SEALED.unpack(data, ("", ADA), _FENCE, 1000, redis_key="key"), NoValue):
        raise LetIn(data)


def reply(data: bytes) -> None:
    """A reply of PostgREST, or of whatever stands before it."""
    status = 200 + int.from_bytes(data[:2]) % 400
    headers = {"retry-after": data[2:12].decode("latin-1"), "content-range": data[2:12].decode("latin-1")}

    def classified(body: bytes) -> None:
        classify(status, headers, body, function="hr.f", now=0.0)

    for read in (classified, lambda body: context_from(body, ADA), contexts_from):
        try:
            read(data[2:])
        except SourceError:
            continue


def admin(data: bytes) -> None:
    """A request to the admin without its token."""
    method, _, rest = data.partition(b" ")
    where, _, raw = rest.partition(b"|")
    headers = [tuple(line.partition(b":")[::2]) for line in raw.split(b"\n")]
    if any(TOKEN.encode() in value for _, value in headers):
        return
    scope = {
        **http_scope(where.decode("utf-8", "replace")),
        "method": method.decode("latin-1"),
        "headers": [(name.lower(), value) for name, value in headers],
        "client": (data[:8].decode("latin-1"), 1),
    }
    sent = asyncio.run(_from_admin(scope))
    if sent[0]["status"] not in (401, 429):
        raise LetIn(data)


async def _from_admin(scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await AdminApp(_PLUGIN, BearerToken(TOKEN), attempts=Attempts())(scope, _nothing, send)
    return sent


def forget(data: bytes) -> None:
    """The body of a request to forget one user: it names one, or is refused."""
    sent = asyncio.run(_forgotten(data))
    if sent[0]["status"] not in (200, 400):
        raise LetIn(data)


async def _forgotten(body: bytes) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = http_scope("/invalidate", method="POST", headers=[(b"authorization", f"Bearer {TOKEN}".encode())])
    await AdminApp(_PLUGIN, BearerToken(TOKEN), attempts=Attempts())(scope, receive, send)
    return sent


TARGETS: Final[Mapping[str, Target]] = {
    "token": token,
    "claims": claims,
    "keys": keys,
    "header": header,
    "path": path,
    "request": request,
    "value": value,
    "reply": reply,
    "admin": admin,
    "forget": forget,
}

SEEDS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "token": (signed().encode()[:-2], b"a.b.c"),
    "claims": (b'{"alg":"HS256"}|{"email":"ada@example.org","exp":1900003600}', b'{"alg":"none"}|{}'),
    "keys": (
        b'{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"a"}]}',
        b'{"keys":[{"kty":"RSA","n":"AA"}]}',
    ),
    "header": (b"ada@example.org|10.0.0.8|6.6.6.6, 10.1.0.4", b"a@b.c|::1|[::1]:80"),
    "path": (b"/health/live", b"/health/../me", b"/static/x.css"),
    "request": (b"me|authorization:Bearer x\norigin:http://a.example", b"|sec-fetch-site:none"),
    "value": (_OF_BOB, b"\xc1\x01"),
    "reply": (b"\x00\x00[]", b"\x00\x00null", b'\x00\xc8{"code":"PGRST202","message":"x"}'),
    "forget": (b'{"email":"ada@example.org"}', b'{"subject":"7","tenant":"a"}', b'{"email":"\\ud800"}'),
    "admin": (b"POST /clear|authorization:Bearer x", b"GET /stats|origin:null"),
}
