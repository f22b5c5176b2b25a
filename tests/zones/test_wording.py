"""What of a client's own words stands in our errors, and that a long text costs no more than a short one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxmiddleware.zones.wording import without_addresses


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Access Denied: bot@demo.iam.gserviceaccount.com may not", "Access Denied: (an address) may not"),
        ("account=<a@b.c>, or 'd+e@f.g';h@i", "account=<(an address)>, or '(an address)';(an address)"),
        ("a@b@c @d e@", "(an address) (an address) (an address)"),
        ("ünï.çødé@例え.jp", "(an address)"),
        ("Not found: Table demo:geo.none", "Not found: Table demo:geo.none"),
        ("", ""),
    ],
)
def test_addresses_are_replaced_and_nothing_else(text: str, told: str) -> None:
    """Whatever stands between blanks and brackets and has an @ in it is not shown."""
    assert without_addresses(text) == told


@pytest.mark.parametrize("word", ["x", "x.", "@", "a@b ", "<", "x" * 63 + "."])
def test_a_long_text_costs_no_more_than_a_short_one(word: str) -> None:
    """A page of any size is cut before it is searched: quadratic, 40,000 characters took four seconds."""
    short, page = (word * 1_000_000)[:40_000], (word * 1_000_000)[:1_000_000]
    for text in (short, page):
        began = time.thread_time()
        told = without_addresses(text)
        assert time.thread_time() - began < 1.0
        assert len(told) <= 500
        assert "@" not in told
    assert without_addresses(short) == without_addresses(page)


@pytest.mark.parametrize("length", range(1900, 2010))
def test_an_address_that_is_cut_in_two_is_not_shown(length: int) -> None:
    """Where the text is cut in the middle of an address, its first half stays out as well."""
    told = without_addresses("a@b " * (length // 4) + "x" * (length % 4) + " somebody.special@example.com" * 20)
    assert "some" not in told


@given(st.text(alphabet="ab@<>,; \n", max_size=300))
def test_no_at_sign_is_left(text: str) -> None:
    """No arrangement of words and separators lets an address through."""
    assert "@" not in without_addresses(text)
