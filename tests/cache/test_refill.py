"""What a look-up at the start puts into memory, and what the news that came since it began keep out."""

from __future__ import annotations

from typing import Any

import pytest

from ctxmiddleware.cache.names import digest_of
from ctxmiddleware.cache.refill import Refill

ADA, BOB = ("", "ada"), ("acme", "bob")
ENTRIES: list[Any] = [(ADA, "of ada"), (BOB, "of bob")]


class Memory:
    """What was put into memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refill: Refill[Any] = Refill(self._put)

    def _put(self, key: tuple[str, str], entry: object) -> bool:
        self.names.append(key[1])
        return True


@pytest.mark.parametrize(
    ("heard", "kept"),
    [([], ["ada", "bob"]), (["ada"], ["bob"]), (["ada", "bob"], []), ([None], []), (["x"], ["ada", "bob"])],
)
def test_news_of_a_name_keep_out_that_name_alone(heard: list[str | None], kept: list[str]) -> None:
    """And news of all names keep out everything; news from before the look-up nothing."""
    memory = Memory()
    memory.refill.hear(None)
    with memory.refill.begin() as news:
        for name in heard:
            memory.refill.hear(None if name is None else digest_of(name))
        assert memory.refill.keep(news, ENTRIES) == len(kept)
    assert memory.names == kept


def test_of_two_look_ups_that_overlap_only_the_later_is_kept() -> None:
    """The news are collected for one: the other might keep what was invalidated."""
    memory = Memory()
    with memory.refill.begin() as first:
        with memory.refill.begin() as second:
            memory.refill.hear(digest_of("ada"))
            assert memory.refill.keep(first, ENTRIES) == 0
            assert memory.refill.keep(second, ENTRIES) == 1
        assert memory.refill.keep(first, ENTRIES) == 0
    assert memory.names == ["bob"]
