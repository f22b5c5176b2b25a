"""Rows that many values have in common, kept once."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from .weight import weigh

V = TypeVar("V")


class _Row:
    __slots__ = ("content", "count", "row", "size")

    def __init__(self, row: object, content: tuple[type, bytes | int], size: int) -> None:
        self.row = row
        self.content = content
        self.size = size
        self.count = 0


class Sharing:
    """Replaces equal rows of different values by one, and forgets a row with the last value that holds it.

    Values are msgspec structs; of their fields those that are such a row, or a tuple of them, are looked at. Equal are
    rows that encode to the same bytes: 1, 1.0 and True compare equal and are three things. What cannot be encoded is
    equal to itself only.

    Args:
        kinds: the types of the rows.
    """

    def __init__(self, kinds: tuple[type, ...]) -> None:
        self.kinds = frozenset(kinds)
        self.bytes = 0
        self._by_content: dict[tuple[type, bytes | int], _Row] = {}
        self._by_id: dict[int, _Row] = {}
        self._encode = msgspec.msgpack.Encoder().encode

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<Sharing: {len(self)} rows, {self.bytes} bytes>"

    def take(self, value: V) -> V:
        """Return the value with the rows that are kept already, and keep those that are not.

        Raises:
            Exception: what a row raises that is weighed; nothing of the value is kept then.
        """
        taken: list[object] = []
        changed: dict[str, object] = {}
        try:
            for name, field in self._fields(value):
                rows = [self._one(row, taken) for row in _rows(field)]
                changed[name] = tuple(rows) if isinstance(field, tuple) else rows[0]
        except BaseException:
            for row in taken:
                self._give_back(row)
            raise
        if not changed:
            return value
        replaced: Any = msgspec.structs.replace(value, **changed)  # type: ignore[type-var]  # fields make it a struct
        return replaced  # type: ignore[no-any-return]

    def release(self, value: object) -> None:
        """Give back the rows of a value that was returned by `take`."""
        for _, field in self._fields(value):
            for row in _rows(field):
                self._give_back(row)

    def weight(self, value: object) -> int:
        """Return the bytes of the rows of a value that was returned by `take`, whoever else holds them."""
        rows = {id(row) for _, field in self._fields(value) for row in _rows(field)}
        return sum(self._by_id[row].size for row in rows)

    def rows(self, value: object) -> list[object]:
        """Return the rows of a value that are kept once with those of others; all the rest is its own."""
        return [row for _, field in self._fields(value) for row in (field if isinstance(field, tuple) else (field,))]

    def clear(self) -> None:
        """Forget all rows."""
        self._by_content.clear()
        self._by_id.clear()
        self.bytes = 0

    def _fields(self, value: object) -> list[tuple[str, object]]:
        if not self.kinds:
            return []
        fields = [(name, getattr(value, name)) for name in getattr(type(value), "__struct_fields__", ())]
        return [(name, field) for name, field in fields if self._is_shared(field)]

    def _is_shared(self, field: object) -> bool:
        if isinstance(field, tuple):
            return bool(field) and all(type(row) in self.kinds for row in field)
        return type(field) in self.kinds

    def _one(self, row: object, taken: list[object]) -> object:
        content = self._content(row)
        kept = self._by_content.get(content)
        if kept is None:
            kept = _Row(row, content, weigh(row) + weigh(content[1]))
            self._by_content[content] = self._by_id[id(row)] = kept
            self.bytes += kept.size
        kept.count += 1
        taken.append(kept.row)
        return kept.row

    def _content(self, row: object) -> tuple[type, bytes | int]:
        try:
            return type(row), self._encode(row)
        except Exception:  # noqa: BLE001 - a number or a text that msgpack cannot hold is no reason to keep nobody's
            return type(row), id(row)

    def _give_back(self, row: object) -> None:
        kept = self._by_id.get(id(row))
        if kept is None or kept.row is not row:
            return
        kept.count -= 1
        if not kept.count:
            del self._by_id[id(row)], self._by_content[kept.content]
            self.bytes -= kept.size


def _rows(field: object) -> tuple[object, ...]:
    return field if isinstance(field, tuple) else (field,)
