"""Reading the settings from environment variables: all that is wrong is told at once."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from .errors import ConfigurationError
from .secret import Secret
from .settings import ADMIN_TOKEN, LOG_KEY, Settings, settings_of, variables
from .shown import shown
from .tracebacks import sheltered

logger = logging.getLogger("ctxmiddleware.environment")

PREFIX: Final = "CTX_"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an environment says, and what of it cannot be.

    Args:
        settings: what could be read; a variable that could not stands at its default.
        given: the variables that are set, readable or not.
        faults: what is wrong, one sentence each.
    """

    settings: Settings
    given: frozenset[str]
    faults: tuple[str, ...]


def read(environ: Mapping[str, str]) -> Reading:
    """Read what can be read, and tell of the rest without raising.

    A variable that is unset or empty takes its default.
    """
    values: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    given: set[str] = set()
    faults: list[str] = []
    for each in variables():
        rule = each.rule
        text = environ.get(rule.variable, "").strip()
        if not text:
            continue
        given.add(rule.variable)
        try:
            values[each.group][each.name] = rule.read(text)
        except (ValueError, OverflowError):
            faults.append(f"{rule.variable} held {shown(text, secret=rule.secret)}; allowed is {rule.allowed}")
    _warn_of_unknown(environ)
    return Reading(settings_of(values), frozenset(given), (*faults, *_contradictions(given)))


@sheltered
def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        environ: the variables.

    Raises:
        ConfigurationError: one or more cannot be; the message names each variable, what it held and what is allowed.
    """
    reading = read(environ)
    # What collects errors keeps the locals of the frames that raised them.
    del environ
    if reading.faults:
        raise ConfigurationError(*reading.faults)
    return reading.settings


@sheltered
def admin_token(environ: Mapping[str, str] = os.environ) -> Secret | None:
    """Read the one variable that whoever asks an admin needs, whatever the others hold.

    Raises:
        ConfigurationError: no application would take it.
    """
    return from_env({ADMIN_TOKEN: environ.get(ADMIN_TOKEN, "")}).admin_token


@sheltered
def log_key(environ: Mapping[str, str] = os.environ) -> Secret | None:
    """Read the key that names users in logs, whatever the other variables hold.

    Raises:
        ConfigurationError: no application would take it.
    """
    return from_env({LOG_KEY: environ.get(LOG_KEY, "")}).log_key


def _warn_of_unknown(environ: Mapping[str, str]) -> None:
    """Log variables with our prefix that nothing reads: a misspelt one would be silently without effect."""
    known = {each.rule.variable for each in variables()}
    for name in sorted(name for name in environ if name.startswith(PREFIX) and name not in known):
        near = get_close_matches(name, known, n=1)
        logger.warning(
            "%s is no variable of ctxmiddleware and has no effect%s", name, f": did you mean {near[0]}?" if near else ""
        )


def _contradictions(given: Container[str]) -> list[str]:
    """Return what is wrong between variables, each of which may be right by itself."""
    faults = []
    if ("BIGQUERY_PROJECT" in given) != ("BIGQUERY_ZONES_TABLE" in given):
        faults.append("BIGQUERY_PROJECT and BIGQUERY_ZONES_TABLE belong together: set both, or neither")
    if "SUPABASE_READ_URL" in given and "SUPABASE_URL" not in given:
        faults.append("SUPABASE_READ_URL needs SUPABASE_URL: a replica alone takes no part in an invalidation")
    if "CTX_REDIS_REPLICAS" in given and "REDIS_URL" not in given:
        faults.append("CTX_REDIS_REPLICAS needs REDIS_URL: without Redis there are no replicas of it")
    return faults
