"""Whether spellings are one address exactly where the e-mail rule says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.address import LONGEST, is_legible, normalise


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Ada@Example.ORG", "ada@example.org"),
        (" \t\r\n\f\vada@example.org \n", "ada@example.org"),
        ("\u00a0ada@example.org", "\u00a0ada@example.org"),
        ("İda@example.org", "İda@example.org"),
        ("\u212aATE@example.org", "\u212aate@example.org"),
        ("ÀDA@example.org", "Àda@example.org"),
        ("a b+C'D_%.e@example.org", "a b+c'd_%.e@example.org"),
        ("", ""),
        (" ", ""),
    ],
)
def test_strips_ascii_space_and_lowers_ascii_letters_only(given: str, expected: str) -> None:
    """Unicode letters and spaces stay as they are, wherever Python would lower or strip them."""
    assert normalise(given) == expected


@given(st.text())
def test_agrees_with_the_rule_letter_by_letter(email: str) -> None:
    """Each character is lowered by itself if it is A-Z, nothing else changes, and doing it twice changes nothing."""
    once = normalise(email)
    assert normalise(once) == once
    stripped = email.strip(" \t\n\r\f\v")
    assert once == "".join(chr(ord(each) + 32) if "A" <= each <= "Z" else each for each in stripped)


@pytest.mark.parametrize("name", ["ada@example.org", "auth0|5f7c8ec7", "Ada Lovelace", "\u5e73", "a" * LONGEST])
def test_printable_names_are_legible(name: str) -> None:
    """An address, a subject of a token, or a name in any script."""
    assert is_legible(name)


@pytest.mark.parametrize("name", ["", " ", "\t", "ada\n", "a\x00da", "ada\u202egro.", "\ud800", "a" * (LONGEST + 1)])
def test_blank_invisible_and_overlong_names_are_not_legible(name: str) -> None:
    """White space, control and format characters, half a surrogate pair, and more than the longest address."""
    assert not is_legible(name)
