"""What is said of a connection that could not be made."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from ctxmiddleware.network import reason

PAST = datetime.now(UTC) - timedelta(days=1)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("other.example", "its certificate is for another host name"),
        ("127.0.0.2", "its certificate is for another address"),
        ("expired.example", "its certificate has expired"),
        ("untrusted.example", "its certificate is not trusted here"),
    ],
)
def test_what_is_wrong_with_a_certificate_is_said(host: str, said: str) -> None:
    """Each has another way out."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    names = ("own.example", "127.0.0.1") if "other" in host or "127" in host else (host,)
    expires = PAST if host == "expired.example" else None
    certificate = authority.issue_cert(*names, not_after=expires)
    certificate.configure_cert(server)
    if host != "untrusted.example":
        authority.configure_trust(client)
    with pytest.raises(ssl.SSLCertVerificationError) as raised:
        _handshake(server, client, host)
    assert reason(raised.value) == said
