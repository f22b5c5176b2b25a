"""How PostgREST 16 would have said what PostgREST 12.0.2 answered."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .upstream import Reply

_Error: TypeAlias = dict[str, object]
_JSON = b"application/json; charset=utf-8"


@dataclass(frozen=True)
class Asked:
    """The part of a request that an answer may speak of.

    Args:
        method: in capitals.
        path: without prefix and query.
        headers: names in small letters.
        body: as it was sent.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def token(self) -> str | None:
        """What follows `Bearer`; None where there is no such header."""
        scheme, _, token = self.headers.get("authorization", "").strip().partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None

    @property
    def schema(self) -> str | None:
        """The schema the request names."""
        return self.headers.get("accept-profile" if self.method in ("GET", "HEAD") else "content-profile")


def refused_by_16(asked: Asked) -> Reply | None:
    """Return the refusal of a request that 12.0.2 would take for an anonymous one."""
    if asked.token != "":
        return None
    error = _error("PGRST301", "Empty JWT is sent in Authorization header")
    return _refusal(Reply(401, [], b""), 401, error)


def in_16(asked: Asked, reply: Reply) -> Reply:
    """Return a reply of 12.0.2 in the form of 16; replies that are the same in both are returned as they are.

    The hints by which 16 proposes a similar name are left null, as it leaves them where nothing is similar.
    """
    error = _parsed(reply)
    if error is None:
        return reply
    rule = _RULES.get(str(error["code"]))
    status, error = rule(asked, reply.status, error) if rule else (reply.status, error)
    return _refusal(reply, status, error)


def _parsed(reply: Reply) -> _Error | None:
    if reply.status < 400:
        return None
    try:
        error = json.loads(reply.body)
    except ValueError:
        return None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None


def _refusal(reply: Reply, status: int, error: _Error) -> Reply:
    code = str(error["code"])
    replaced = [b"content-type", b"proxy-status"]
    added = [(b"Content-Type", _JSON), (b"Proxy-Status", f"PostgREST; error={code}".encode())]
    if code in ("PGRST301", "PGRST303"):
        replaced.append(b"www-authenticate")
        described = json.dumps(error["message"])
        added.append((b"WWW-Authenticate", f'Bearer error="invalid_token", error_description={described}'.encode()))
    elif status == 401 and not any(name.lower() == b"www-authenticate" for name, _ in reply.headers):
        added.append((b"WWW-Authenticate", b"Bearer"))
    kept = [pair for pair in reply.headers if pair[0].lower() not in replaced]
    body = json.dumps(error, separators=(",", ":"), ensure_ascii=False).encode()
    return Reply(status, kept + added, body)


def _error(code: str, message: str, *, details: str | None = None, hint: str | None = None) -> _Error:
    return {"code": code, "details": details, "hint": hint, "message": message}


def _function_missing(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    named = re.match(r"function (?P<name>[^(]+)\(", str(error["message"]))
    if not named or asked.path != f"/rpc/{named['name'].rpartition('.')[2]}":
        return status, error
    name, keys = named["name"], _arguments(asked)
    parameters = f"({', '.join(keys)})" if keys else " without parameters"
    searched = f" with parameter{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if keys else parameters
    unnamed = " or with a single unnamed json/jsonb parameter" if asked.method == "POST" else ""
    return 404, _error(
        "PGRST202",
        f"Could not find the function {name}{parameters} in the schema cache",
        details=f"Searched for the function {name}{searched}{unnamed}, but no matches were found in the schema cache.",
    )


def _arguments(asked: Asked) -> list[str]:
    try:
        body = json.loads(asked.body)
    except ValueError:
        return []
    return sorted(body) if isinstance(body, dict) else []


def _table_missing(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    named = re.match(r'relation "(?P<name>[^"]+)" does not exist', str(error["message"]))
    # Inside a function or a view it is PostgreSQL's own error in both.
    if not named or asked.path != f"/{named['name'].rpartition('.')[2]}":
        return status, error
    return 404, _error("PGRST205", f"Could not find the table '{named['name']}' in the schema cache")


def _schema_refused(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    exposed = str(error["message"]).partition(": ")[2]
    hint = f"Only the following schemas are exposed: {exposed}"
    return status, _error("PGRST106", f"Invalid schema: {asked.schema}", hint=hint)


def _not_single(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    return status, error | {"message": "Cannot coerce the result to a single JSON object"}


def _token_refused(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    message = str(error["message"])
    if message == "JWT expired":
        return status, _error("PGRST303", message)
    parts = len((asked.token or "").split("."))
    if parts != 3:
        return status, _error("PGRST301", f"Expected 3 parts in JWT; got {parts}")
    details = "None of the keys was able to decode the JWT"
    return status, _error("PGRST301", "No suitable key or wrong key type", details=details)


def _role_missing(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    return (401 if re.fullmatch('role ".*" does not exist', str(error["message"])) else status), error


def _not_acceptable(asked: Asked, status: int, error: _Error) -> tuple[int, _Error]:
    return 406, error


_RULES: Mapping[str, Callable[[Asked, int, _Error], tuple[int, _Error]]] = {
    "42883": _function_missing,
    "42P01": _table_missing,
    "PGRST106": _schema_refused,
    "PGRST107": _not_acceptable,
    "PGRST116": _not_single,
    "PGRST301": _token_refused,
    "22023": _role_missing,
}
