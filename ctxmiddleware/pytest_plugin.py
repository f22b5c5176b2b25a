"""The plugin for pytest: a fixture, and apps whose plugin is made from the environment when they are imported.

pytest loads it by its entry point. In its run, and nowhere else, `ContextPlugin.from_env()` needs no variables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from . import testing, unconfigured


class OverrideUserContext(Protocol):
    """Gives a context to all requests until the end of the test."""

    def __call__(self, context: object, *, key: str = "user_context") -> None:
        """Override the context, as `ctxmiddleware.testing.override_user_context` does in a block."""
        ...


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin before a conftest.py can import the app; a run that is never configured ends too."""
    unconfigured.begin(early_config)
    early_config.add_cleanup(lambda: unconfigured.end(early_config))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin, where a conftest.py has named this plugin."""
    unconfigured.begin(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End with the run."""
    unconfigured.end(config)


@pytest.fixture
def override_user_context() -> Iterator[OverrideUserContext]:
    """Give a context to all requests of this test: `override_user_context(context)`."""
    with ExitStack() as stack:

        def until_the_end(context: object, *, key: str = "user_context") -> None:
            stack.enter_context(testing.override_user_context(context, key=key))

        yield until_the_end
