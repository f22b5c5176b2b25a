"""Whether an invalidation that was announced is expected until it has happened itself."""

from __future__ import annotations

import pytest

from ctxmiddleware.cache.expecting import EXPECTED_SECONDS, Expected
from ctxmiddleware.cache.names import digest_of

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.mark.parametrize("digest", [digest_of(ADA), None], ids=["a name", "everyone"])
def test_it_is_expected_from_its_announcement_until_it_has_happened(digest: bytes | None) -> None:
    """Of nobody else, unless it is of everyone."""
    expected = Expected()
    assert not expected.holds(ADA, 0)
    expected.begin(digest, b"one", 0)
    assert expected.holds(ADA, 0)
    assert expected.holds(BOB, 0) is (digest is None)
    expected.end(digest, b"one")
    assert not expected.holds(ADA, 0)
    assert not expected.holds(BOB, 0)


def test_the_end_of_one_is_not_the_end_of_another_of_the_same_name() -> None:
    """Two instances invalidate the same user at once: the first to be done must not let the second one's reads in."""
    expected, ada = Expected(), digest_of(ADA)
    expected.begin(ada, b"one", 0)
    expected.begin(ada, b"two", 0)
    expected.end(ada, b"one")
    assert expected.holds(ADA, 0)
    expected.end(ada, b"one")
    assert expected.holds(ADA, 0)
    expected.end(ada, b"two")
    assert not expected.holds(ADA, 0)


def test_one_that_never_happens_is_forgotten() -> None:
    """Whoever announced it has died: each counts from its own announcement, and nothing of it is left."""
    expected, ada = Expected(), digest_of(ADA)
    expected.begin(ada, b"one", 0)
    expected.begin(ada, b"two", 4)
    assert expected.holds(ADA, EXPECTED_SECONDS + 3.9)
    assert not expected.holds(ADA, EXPECTED_SECONDS + 4)
    expected.begin(None, b"three", EXPECTED_SECONDS + 4)
    assert list(expected._until) == [None]
    expected.end(ada, b"never begun")
    assert not expected.holds(ADA, 2 * EXPECTED_SECONDS + 4)
