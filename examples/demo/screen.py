"""What the person before the screen sees while the demo works: a moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.status import Status

_WHAT = 34
_DETAIL = 34


@dataclass
class Step:
    """Something under way.

    Args:
        what: what it is.
        detail: what has come of it; set it before the step ends.
    """

    what: str
    detail: str = ""
    _live: Status | None = field(default=None, repr=False)

    def progress(self, text: str) -> None:
        """Show how far it is, where the line can move."""
        if self._live is not None:
            self._live.update(escape(f"{self.what}: {text}"))


class Screen:
    """Prints steps with their times, text and tables.

    Args:
        console: where to; moving lines are for terminals only.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """Show that something is under way, and how long it took when it is over."""
        began = time.monotonic()
        step = Step(what)
        try:
            with self._under_way(step):
                yield step
        except BaseException:
            self._end(step, "" if self._console.is_terminal else "stopped", began)
            raise
        self._end(step, step.detail, began)

    def say(self, text: str = "") -> None:
        """Print lines as they are: a long one is not broken, so that it can be copied."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print a table."""
        self._console.print(what)

    @contextmanager
    def _under_way(self, step: Step) -> Iterator[None]:
        if not self._console.is_terminal:
            # The beginning of the line is all that can be shown of what has not ended.
            self._console.file.write(f"  {step.what:<{_WHAT}} ")
            self._console.file.flush()
            yield
            return
        with self._console.status(escape(step.what), spinner="line") as live:
            step._live = live
            yield

    def _end(self, step: Step, detail: str, began: float) -> None:
        seconds = f"{time.monotonic() - began:6.1f} s"
        line = f"{detail:<{_DETAIL}} {seconds}"
        self.say(f"  {step.what:<{_WHAT}} {line}" if self._console.is_terminal else line)
