"""Whether a header is believed from whoever may write it, and from nobody else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware import BadCredential, ConfigurationError, Identity, TrustedHeader
from ctxmiddleware.identity.rejection import take_rejection

ADA = "ada@example.org"
PROXY, INNER = "10.0.0.7", "10.1.0.3"


def _asked(
    header: TrustedHeader, *values: str | bytes, client: Any = (PROXY, 4711), forwarded: tuple[str, ...] = ()
) -> Identity | None:
    headers = [(b"X-Forwarded-Email", each if isinstance(each, bytes) else each.encode()) for each in values]
    headers += [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return header({"type": "http", "headers": headers, "client": client})


def _trusted(**changed: Any) -> TrustedHeader:
    options: dict[str, Any] = {"peers": [PROXY, "192.168.0.0/16", "fd00::/8"], **changed}
    return TrustedHeader("X-Forwarded-Email", **options)


@pytest.mark.parametrize(
    "peer",
    [PROXY, "192.168.3.4", "fd00::1", "::ffff:10.0.0.7", "::ffff:192.168.1.1", "0:0:0:0:0:ffff:a00:7"],
)
def test_from_the_proxy_it_names_its_user(peer: str) -> None:
    """Also where an IPv6 socket shows the address of IPv4."""
    assert _asked(_trusted(tenant="acme"), ADA, client=(peer, 1)) == Identity(ADA, tenant="acme")


@pytest.mark.parametrize(
    "client",
    [
        ("10.0.0.8", 1), ("192.169.0.1", 1), ("fe80::1", 1), ("::ffff:10.0.0.8", 1), ("127.0.0.1", 1), ("::1", 1),
        ("testclient", 1), ("", 1), ("10.0.0.7.", 1), ("010.0.0.7", 1), ("10.0.0.7%eth0", 1), (None, 1), None, (), [],
    ],
    ids=str,
)  # fmt: skip
def test_from_an_untrusted_peer_it_is_ignored_for_a_reason(client: object) -> None:
    """The rejection on the scope says what to do; a connection without a peer is as untrusted."""
    scope = {"type": "http", "headers": [(b"x-forwarded-email", ADA.encode())], "client": client}
    assert _trusted(on_bad="refuse")(scope) is None
    rejection = take_rejection(scope)
    assert rejection is not None
    assert (rejection.fault, rejection.is_foreign) == ("untrusted peer", True)
    assert "list the proxy" in rejection.hint
    assert ADA not in rejection.hint


def test_without_a_peer_it_is_believed_only_where_that_was_said() -> None:
    """Connections by a unix socket have none."""
    assert _asked(TrustedHeader("X-Forwarded-Email", unix_socket=True), ADA, client=None) == Identity(ADA)
    assert _asked(TrustedHeader("X-Forwarded-Email", unix_socket=True), ADA) is None
    assert _asked(_trusted(unix_socket=False), ADA, client=None) is None


@pytest.mark.parametrize(
    ("forwarded", "is_believed"),
    [
        ((), False),
        ((PROXY,), True),
        ((f"6.6.6.6, {PROXY}",), True),
        ((f"{PROXY}, 6.6.6.6",), False),
        ((f"{PROXY}, 10.1.0.9",), True),
        ((f"{PROXY}, 10.1.0.9, 10.1.0.8",), True),
        ((PROXY, "10.1.0.9"), True),
        (("10.1.0.9", PROXY), True),
        (("6.6.6.6", "10.1.0.9"), False),
        ((f"{PROXY}, 6.6.6.6, 10.1.0.9",), False),
        (("10.1.0.9",), False),
        ((f"{PROXY}:8080",), True),
        (("[fd00::1]:80",), True),
        (("[fd00::1]",), True),
        ((f"{PROXY}, unknown",), False),
        ((f"{PROXY},",), False),
        ((f"{PROXY}, ,10.1.0.9",), False),
        ((f'{PROXY}, "10.1.0.9"',), False),
        (("",), False),
    ],
    ids=str,
)
def test_through_other_proxies_it_is_walked_from_the_right(forwarded: tuple[str, ...], *, is_believed: bool) -> None:
    """Up to the first that is none of them, who must be the one that writes it; further left anybody may write."""
    found = _asked(_trusted(through=["10.1.0.0/24"]), ADA, client=(INNER, 1), forwarded=forwarded)
    assert (found is not None) is is_believed
    # Where no proxies in between are expected nobody is believed through one.
    assert _asked(_trusted(), ADA, client=(INNER, 1), forwarded=forwarded) is None


@pytest.mark.parametrize(
    "values",
    [
        (ADA, ADA), (ADA, "boss@example.org"), (f"{ADA},boss@example.org",), (f"{ADA}, {ADA}",), ("",), (" ",),
        (b"\xff\xfe",), ("ada\x00",), ("ada\n",), ("a" * 321,),
    ],
    ids=str,
)  # fmt: skip
def test_one_that_is_no_good_names_nobody(values: tuple[str | bytes, ...]) -> None:
    """Or is refused, by choice; never the first of two."""
    assert _asked(_trusted(), *values) is None
    with pytest.raises(BadCredential) as caught:
        _asked(_trusted(on_bad="refuse"), *values)
    assert "example.org" not in str(caught.value)


def test_a_name_that_only_looks_like_it_is_another_header() -> None:
    """With an underscore, as some servers take it for the same."""
    scope = {"type": "http", "headers": [(b"x_forwarded_email", ADA.encode())], "client": (PROXY, 1)}
    assert _trusted()(scope) is None
    assert _trusted()({"type": "http", "headers": [], "client": (PROXY, 1)}) is None
    assert _trusted()({"type": "http", "client": (PROXY, 1)}) is None


def test_the_text_is_utf_8() -> None:
    """As the bytes of a header are where an address is not ASCII."""
    assert _asked(_trusted(), " Ünïcode@example.org\t") == Identity("Ünïcode@example.org")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"peers": []}, "needs peers"),
        ({"peers": "10.0.0.7"}, "peers was the text '10.0.0.7'"),
        ({"peers": ["proxy.internal"]}, "peers held 'proxy.internal'"),
        ({"peers": ["10.0.0.7/8"]}, "peers held '10.0.0.7/8'"),
        ({"peers": ["0.0.0.0/0"]}, "which is everybody"),
        ({"through": ["::/0"]}, "through held '::/0', which is everybody"),
        ({"peers": [None]}, "peers held None"),
        ({"header": ""}, "header was ''"),
        ({"header": "X Forwarded"}, "header was 'X Forwarded'"),
        ({"header": b"X"}, "header was b'X'"),
        ({"on_bad": "ignore"}, "on_bad was 'ignore'"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_where_it_is_made(changed: dict[str, Any], told: str) -> None:
    """And says what is right."""
    options: dict[str, Any] = {"header": "X-Forwarded-Email", "peers": [PROXY], **changed}
    with pytest.raises(ConfigurationError, match=told):
        TrustedHeader(options.pop("header"), **options)


@given(st.lists(st.binary(max_size=40), max_size=4), st.one_of(st.none(), st.text(max_size=30)), st.binary(max_size=60))
def test_nobody_comes_in_by_garbage(values: list[bytes], peer: str | None, forwarded: bytes) -> None:
    """Whatever stands in the headers and for the peer: an identity, nobody, or a bad credential."""
    header = _trusted(on_bad="refuse", through=["10.1.0.0/24"])
    headers = [(b"x-forwarded-email", value) for value in values] + [(b"x-forwarded-for", forwarded)]
    scope = {"type": "http", "headers": headers, "client": None if peer is None else (peer, 1)}
    try:
        assert header(scope) is None
    except BadCredential:
        pytest.fail("a peer that is no address is trusted")
    scope["client"] = (PROXY, 1)
    try:
        identity = header(scope)
    except BadCredential:
        assert values
    else:
        assert identity is None or (identity.email or "").encode() in values[0]
