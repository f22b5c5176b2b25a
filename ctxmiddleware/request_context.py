"""The context of a request: of the user that `identify` names, or of an override."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import Scope

from .accessors import Refusal
from .address import LONGEST
from .causes import Rejected, ResolutionFailed
from .core import PluginCore
from .identity.first_of import resolved
from .identity.rejection import REJECTIONS_KEY
from .overriding import overridden
from .principal import Identity


async def context_of(plugin: PluginCore[Any], scope: Scope) -> tuple[object, Refusal | None]:
    """Return the context of a request, or why there is none.

    Raises:
        Rejected: `identify` has raised an answer.
        ResolutionFailed: the user's context could not be had.
    """
    override = overridden(plugin.scope_key, plugin)
    if override is not None:
        return (None, "anonymous") if override.context is None else _judged(plugin, override.context)
    try:
        identity = plugin.identify(scope)
        if identity is not None and not isinstance(identity, Identity):
            identity = await resolved(identity)
    except HTTPException as error:
        raise Rejected from error
    if identity is None:
        return None, "anonymous"
    # Noted by ways before the one that found it.
    scope.pop(REJECTIONS_KEY, None)
    scope[f"{plugin.scope_key}_identity"] = identity
    resolution = plugin.peek(identity)
    if resolution is None:
        # No user has such an address, and thousands of them that wait for the source would fill memory.
        if len(identity.name) > LONGEST:
            return None, "unknown"
        try:
            resolution = await plugin.resolve(identity)
        except Exception as error:
            raise ResolutionFailed(plugin.pseudonyms.of(identity)) from error
    if resolution.context is None:
        return None, "unknown"
    return _judged(plugin, resolution.context)


def _judged(plugin: PluginCore[Any], context: object) -> tuple[object, Refusal | None]:
    active = plugin.is_active(context)
    if not isinstance(active, bool):
        # A coroutine that is not awaited is truthy, and would admit every user.
        raise TypeError(f"is_active returned {type(active).__name__}; it must return a bool")
    return (context, None) if active else (None, "inactive")
