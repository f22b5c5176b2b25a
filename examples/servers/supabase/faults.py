"""Which requests the front does not answer as it should."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Action: TypeAlias = Literal["answer", "hang", "drop", "cut"]


@dataclass
class Fault:
    """What happens to some requests to come.

    Args:
        action: "answer" with the reply given here; "hang" without an answer; "drop" the connection before the reply;
            "cut" it in the middle of the right reply.
        times: how many requests; None for all until the faults are cleared.
        contains: only those whose path and query hold this.
        status: of the reply.
        headers: of the reply.
        body: of the reply.
        after: bytes of the body before the cut.
    """

    action: Action = "answer"
    times: int | None = 1
    contains: str = ""
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    after: int = 0


class Faults:
    """The faults that are ordered, the oldest first."""

    def __init__(self) -> None:
        self._ordered: list[Fault] = []
        self.delay = 0.0

    def order(self, fault: Fault) -> None:
        """Let the fault happen once those ordered before it have."""
        self._ordered.append(fault)

    def clear(self) -> None:
        """Answer all requests rightly and without delay from now on."""
        self._ordered.clear()
        self.delay = 0.0

    def take(self, target: str) -> Fault | None:
        """Return the fault of this request and count it."""
        for fault in self._ordered:
            if fault.contains in target:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._ordered.remove(fault)
                return fault
        return None
