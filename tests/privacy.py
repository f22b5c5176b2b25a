"""Everything the library logs while the whole suite runs, searched for what must not be there."""

from __future__ import annotations

import logging
import re
from typing import Final

LOGGER: Final = logging.getLogger("ctxmiddleware")

# An address of a person; a JSON Web Token; a key of Supabase; what comes after the word in an Authorization header.
PRIVATE: Final = (
    re.compile(r"[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"),
    re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}"),
    re.compile(r"sb_(?:secret|publishable)_\w+"),
    re.compile(r"[Bb]earer [\w.~+/-]{12,}"),
)
_PLAIN: Final = logging.Formatter()


class Privacy(logging.Handler):
    """Notes each record in which there is something private: in its text, its arguments, its fields or its errors."""

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []
        self.seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Search one record."""
        self.seen += 1
        fields = {name: value for name, value in vars(record).items() if name not in ("pathname", "exc_info")}
        # The text of an error, and of those it was made of; source lines in a traceback hold no values.
        errors = [] if record.exc_info is None else _PLAIN.formatException(record.exc_info).splitlines()
        told = [line for line in errors if not line.lstrip(" |").startswith(("File ", "^", "~"))]
        text = "\n".join([record.getMessage(), repr(record.args), repr(fields), *told])
        self.leaks += [f"{record.name}: {found[0]}" for each in PRIVATE if (found := each.search(text))]
