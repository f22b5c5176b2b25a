"""One block of a test in which requests have another context than that of the identified user."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Override:
    """One block.

    Args:
        context: of the requests in it, None for anonymous ones.
        key: the scope key of the plugins it is for.
        plugin: the only plugin it is for; None for each with that key.
        outer: the block around this one.
        before: the former value of the context variable of the key: a context, or a block.
    """

    context: object
    key: str
    plugin: object = None
    outer: Override | None = None
    before: object = None
    # A task that was started in the block keeps a copy of its context variables and may outlive it.
    is_over: bool = False

    def is_for(self, key: str, plugin: object) -> bool:
        """Return whether it holds for a plugin now."""
        return not self.is_over and self.key == key and (self.plugin is None or self.plugin is plugin)


def in_force(value: object) -> object:
    """Return the context that a value of a context variable stands for; blocks may end out of order."""
    while isinstance(value, Override):
        value = value.before if value.is_over else value.context
    return value
