"""What stands for a source in a test run whose environment names none."""

from __future__ import annotations

import logging
from typing import NoReturn

from .errors import SourceMisconfigured
from .principal import Identity

logger = logging.getLogger("ctxmiddleware.environment")

_NEEDED = ("SUPABASE_URL", "SUPABASE_KEY")

_is_allowed = False


def allow(*, is_allowed: bool) -> None:
    """Say whether a plugin may be made from an environment that names no source; the plugin for pytest does."""
    global _is_allowed
    _is_allowed = is_allowed


def source_in_tests(given: frozenset[str]) -> UnconfiguredSource | None:
    """Return the source of a plugin in a test run without variables, and None anywhere else."""
    if not _is_allowed or any(variable in given for variable in _NEEDED):
        return None
    logger.info("%s are not set: in this test run contexts come from overrides only", " and ".join(_NEEDED))
    return UnconfiguredSource()


class UnconfiguredSource:
    """Fails for each user, with the ways out."""

    label = "unconfigured"

    async def fetch(self, identity: Identity) -> NoReturn:  # noqa: ARG002 - the shape of a source
        """Fail.

        Raises:
            SourceMisconfigured: always.
        """
        raise SourceMisconfigured(
            f"{' and '.join(_NEEDED)} are not set in this test run: give requests a context with "
            "plugin.override(context) or override_user_context(context), give ContextPlugin a StaticSource, or set them"
        )
