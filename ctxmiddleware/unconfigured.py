"""The source of a test run whose environment names none."""

from __future__ import annotations

import logging
from typing import Final, NoReturn

from .errors import SourceMisconfigured
from .principal import Identity

logger = logging.getLogger("ctxmiddleware.environment")

_NEEDED: Final = ("SUPABASE_URL", "SUPABASE_KEY")

# Runs of pytest may be nested.
_test_runs: Final[set[int]] = set()


def begin(run: object) -> None:
    """Let plugins be made from an environment that names no source; the plugin for pytest says so of its run."""
    _test_runs.add(id(run))


def end(run: object) -> None:
    """End that with the run."""
    _test_runs.discard(id(run))


def source_in_tests(given: frozenset[str]) -> UnconfiguredSource | None:
    """Return the source of a plugin in a test run without variables, and None anywhere else."""
    if not _test_runs or any(variable in given for variable in _NEEDED):
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
