"""The keys that signatures are checked with, each for the algorithms of its type: the one home of joserfc."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

from ...errors import ConfigurationError, MissingExtra
from ...secret import Secret
from .rules import BadToken, ForeignToken

Claims: TypeAlias = Mapping[str, object]

# RFC 7518, section 3.2.
LEAST_SECRET_BYTES: Final = 32
# They are looked through for every token that is not remembered.
MOST_KEYS: Final = 64
_LEAST_RSA_BITS: Final = 2048
_MAX_HEADER: Final = 4096
_MAX_PAYLOAD: Final = 16 * 1024
_MAX_SIGNATURE: Final = 1024
# Access tokens of RFC 9068 have a type of their own; what is signed for anything else is no credential.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_NOT_UNDERSTOOD: Final = frozenset({"crit", "b64", "enc", "zip"})
_NO_DIGIT: Final = re.compile(r"[^A-Za-z0-9+/]")
_OBJECT: Final = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x00]*\{[\s\x00]*[\"}]")
EDWARDS: Final = ("EdDSA", "Ed25519")
# What keys that are published may sign with.
PUBLISHED: Final = ("ES256", "RS256", *EDWARDS)


class Key(NamedTuple):
    """A key, its name if it has one, and the algorithms it may be used with, which its type alone decides."""

    name: str | None
    algorithms: Sequence[str]
    key: Any


class Opened(NamedTuple):
    """The parts of a token that say how to check it; nothing in them is to be believed."""

    token: str
    algorithm: str
    key_name: str | None


def need_library() -> None:
    """Make sure that tokens can be verified.

    Raises:
        MissingExtra: the library is not installed.
    """
    try:
        import joserfc  # noqa: F401 - whether it can be
    except ImportError as error:
        raise MissingExtra("BearerJWT", "jwt") from error


def shared_secret(secret: Secret) -> Key:
    """Return the key that a secret is, for HS256 and nothing else.

    Raises:
        ConfigurationError: the library takes it for something that everybody may know.
    """
    from joserfc.jwk import OctKey

    key = None
    # Raised outside the handler: the library's frames hold the secret.
    with suppress(ValueError):
        key = OctKey.import_key(secret.reveal().encode("utf-8", "surrogateescape"))
    if key is None:
        raise ConfigurationError("the secret is none that tokens can be signed with")
    return Key(None, ("HS256",), key)


def published(document: object) -> list[Key]:
    """Return the keys of a key set (RFC 7517, section 5), without those that cannot be used here.

    Raises:
        ValueError: it is no key set, or has no key of use.
    """
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or len(members) > MOST_KEYS:
        raise ValueError(f"it is not a JSON Web Key Set of {MOST_KEYS} keys at most")
    keys = [key for each in members if isinstance(each, dict) and (key := _key(each)) is not None]
    if not keys:
        raise ValueError("it holds no public key for ES256, RS256 or EdDSA")
    return keys


def opened(token: str, issuer: str | None = None) -> Opened:
    """Return how a token wants to be checked.

    Args:
        token: the credential as it was sent.
        issuer: the issuer of the tokens that are this way's; None for any.

    Raises:
        ForeignToken: it is another issuer's, as far as it says so itself, or of another form.
        BadToken: it cannot be read, or not in one way only.
    """
    header = _header(token)
    if issuer is not None:
        _check_issuer(token, issuer)
    algorithm, key_name = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_name, (str, type(None))):
        raise BadToken("its header names no algorithm, or no key", "malformed")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken("it is signed for something else", "malformed")
    # RFC 7515, section 4.1.11; RFC 7797; and what only an encrypted token, or one in another, has.
    if not header.keys().isdisjoint(_NOT_UNDERSTOOD) or str(header.get("cty")).lower() == "jwt":
        raise BadToken("it asks for what is not understood here", "malformed")
    return Opened(token, algorithm, key_name)


def _header(token: str) -> dict[str, Any]:
    head = token.partition(".")[0]
    if token.count(".") != 2:
        raise ForeignToken("it is no signed token", "malformed")
    try:
        return _parsed(_b64(head))
    except (ValueError, RecursionError):
        pass
    # An opaque key may hold two dots; what another reader could take for a header has two readings.
    if _OBJECT.match(_leniently(head)):
        raise BadToken("its header cannot be read", "malformed")
    raise ForeignToken("it is no signed token", "malformed")


def _leniently(text: str) -> bytes:
    """Return the first bytes that some reader could see in base64 of any kind."""
    digits = _NO_DIGIT.sub("", text.replace("-", "+").replace("_", "/"))[:64]
    return base64.b64decode(digits[: len(digits) // 4 * 4])


def _check_issuer(token: str, issuer: str) -> None:
    """Compare the issuer that a token claims, unverified: before any key is fetched for it."""
    try:
        claimed = _parsed(_b64(token.split(".")[1])).get("iss")
    except (ValueError, RecursionError):
        raise BadToken("its claims cannot be read", "malformed") from None
    if not isinstance(claimed, (str, type(None))):
        raise BadToken("its issuer is no text", "malformed")
    if claimed != issuer:
        raise ForeignToken("it was issued by another issuer", "issuer")


def fitting(token: Opened, keys: Iterable[Key]) -> list[Key]:
    """Return the keys that may have signed a token: of its algorithm's type, and of its name.

    One that names no key fits where there is one of its type only.
    """
    found = [key for key in keys if token.algorithm in key.algorithms]
    if token.key_name is not None:
        return [key for key in found if key.name in (token.key_name, None)]
    return found if len(found) == 1 else []


def claims_of(token: Opened, keys: Sequence[Key]) -> Claims:
    """Return what a token says whose signature is right.

    Raises:
        BadToken: it is not, or it says nothing.
    """
    for key in keys:
        payload = _payload(token, key)
        if payload is not None:
            try:
                return _parsed(payload)
            except (ValueError, RecursionError):
                raise BadToken("its claims cannot be read", "malformed") from None
    if keys:
        raise BadToken("its signature is wrong", "signature")
    raise BadToken("its signature is of a key that is not known", "unknown key")


def _payload(token: Opened, key: Key) -> bytes | None:
    from joserfc import jws

    try:
        return jws.deserialize_compact(token.token, key.key, registry=_registry(token.algorithm)).payload
    except Exception:  # noqa: BLE001 - whatever the library makes of what somebody has sent, it is no signature
        return None


@cache
def _registry(algorithm: str) -> Any:
    """Return what lets one algorithm through and no other, and header members that nobody has registered."""
    from joserfc import jws

    class OneOnly(jws.JWSRegistry):
        max_header_length, max_payload_length, max_signature_length = _MAX_HEADER, _MAX_PAYLOAD, _MAX_SIGNATURE

        def get_alg(self, name: str) -> Any:
            # The library's own warns of EdDSA, the name that most issuers use, with each token.
            if name != algorithm:
                raise ValueError("another algorithm")
            return self.algorithms[name]

    return OneOnly(algorithms=[algorithm], strict_check_header=False)


def _key(published: Mapping[str, Any]) -> Key | None:
    # Some issuers write null for what they leave out.
    member = {name: value for name, value in published.items() if value is not None}
    # One that is published with its private half could be anybody's by now.
    uses = member.get("key_ops", ["verify"])
    if member.get("use", "sig") != "sig" or "d" in member or not isinstance(uses, list) or "verify" not in uses:
        return None
    try:
        key, algorithms = _by_type(member)
    except Exception:  # noqa: BLE001 - the library's own errors and others; the other keys of the set are good
        return None
    stated, name = member.get("alg"), member.get("kid")
    if stated is not None:
        algorithms = [each for each in algorithms if each == stated or (each in EDWARDS and stated in EDWARDS)]
    return Key(name if isinstance(name, str) else None, algorithms, key) if algorithms else None


def _by_type(member: dict[str, Any]) -> tuple[object, Sequence[str]]:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    match member.get("kty"), member.get("crv"):
        case "EC", "P-256":
            return ECKey.import_key(member), ("ES256",)
        case "OKP", "Ed25519":
            return OKPKey.import_key(member), EDWARDS
        case "RSA", None if int.from_bytes(_b64(member["n"])).bit_length() >= _LEAST_RSA_BITS:
            return RSAKey.import_key(member), ("RS256",)
    return None, ()


def _b64(text: str) -> bytes:
    if not text.isascii() or any(each in text for each in "=+/\n\r \t"):
        raise ValueError("it is not base64url")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _parsed(data: bytes) -> dict[str, Any]:
    """Read a JSON object strictly.

    Raises:
        ValueError: it is none, or holds a name twice, or a number that is none.
        RecursionError: it is too deep.
    """
    found: object = json.loads(data.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_refused)
    if not isinstance(found, dict):
        raise ValueError("it is not an object")
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7519, section 4: of a name that is there twice, two readers could read two things.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refused(constant: str) -> object:
    raise ValueError(constant)
