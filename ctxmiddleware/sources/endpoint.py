"""Where Supabase is and with which key it is spoken to: checked once, when the source is built."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from ..secret import Secret
from ..shown import shown
from .exchange import Call

_KEYS: Final = "it must be a secret key (sb_secret_...) or the legacy service_role key (a JWT)"


@dataclass(frozen=True, slots=True)
class Server:
    """One PostgREST behind its gateway.

    Args:
        root: the address up to and with `/rest/v1`.
        schema: the schema everything is in.
        key: the checked key.
        reads_only: it is a replica, which takes GET only.
    """

    root: str
    schema: str
    key: Secret
    reads_only: bool = False

    def get(self, path: str, query: dict[str, str], *, prefer: str | None = None) -> Call:
        """Make a call that reads.

        Args:
            path: what is under `/rest/v1/`.
            query: parameters, not yet encoded.
            prefer: the Prefer header.
        """
        headers = {**self._headers(), "accept-profile": self.schema}
        if prefer is not None:
            headers["prefer"] = prefer
        return Call("GET", self.url(path, query), headers)

    def post(self, path: str, arguments: Mapping[str, str | list[str]]) -> Call:
        """Make a call that posts a JSON object.

        Args:
            path: what is under `/rest/v1/`.
            arguments: what is posted.
        """
        headers = {**self._headers(), "content-profile": self.schema, "content-type": "application/json"}
        return Call("POST", f"{self.root}/{path}", headers, msgspec.json.encode(arguments))

    def url(self, path: str, query: dict[str, str]) -> str:
        """Return the whole address: everything encoded but what separates the values of a list."""
        encoded = urlencode(query, safe="(),.", quote_via=quote)
        return f"{self.root}/{path}?{encoded}"

    def _headers(self) -> dict[str, str | Secret]:
        headers: dict[str, str | Secret] = {"accept": "application/json", "apikey": self.key}
        if not self.key.reveal().startswith("sb_"):
            headers["authorization"] = Secret(f"Bearer {self.key.reveal()}")
        return headers


def schema_faults(schema: object) -> list[str]:
    """Return what is wrong with the name of a schema."""
    if isinstance(schema, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", schema):
        return []
    told = shown(schema) if isinstance(schema, str) else f"of type {type(schema).__name__}"
    return [f"SUPABASE_SCHEMA is {told}: it must be the name of a schema: letters, digits, _ and $, 63 at most"]


def key_faults(key: Secret) -> list[str]:
    """Return what is wrong with a key, without showing it."""
    text: object = key.reveal()
    if not isinstance(text, str):
        return [f"SUPABASE_KEY is of type {type(text).__name__}: {_KEYS}"]
    if not text:
        return [f"SUPABASE_KEY is empty: {_KEYS}"]
    if re.search(r"[^\x21-\x7e]", text):
        return [f"SUPABASE_KEY holds white space or characters no key has: {_KEYS}"]
    if text.startswith("sb_publishable_"):
        return [f"SUPABASE_KEY is a publishable key, which everybody may know: {_KEYS}"]
    if text.startswith("sb_"):
        return [] if re.fullmatch(r"sb_secret_[\w-]+", text) else [f"SUPABASE_KEY is no key that is known: {_KEYS}"]
    return _jwt_faults(text)


class _Claims(msgspec.Struct):
    role: str


def _jwt_faults(token: str) -> list[str]:
    parts = token.split(".")
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        role = msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=_Claims).role
    except (IndexError, binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [f"SUPABASE_KEY is no key that is known: {_KEYS}"]
    if len(parts) != 3:
        return [f"SUPABASE_KEY is no key that is known: {_KEYS}"]
    if role in {"anon", "authenticated"}:
        return [f"SUPABASE_KEY is a key of the role {role}, which may not read other people's rows: {_KEYS}"]
    return [] if role == "service_role" else [f"SUPABASE_KEY is a key of another role than service_role: {_KEYS}"]
