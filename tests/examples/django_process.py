"""A process with Django's settings that uses its recipe, and prints what is served when: `DSN`, Redis' URL."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import django
import psycopg
from anyio import from_thread, to_thread
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections, transaction

from tests.examples.recipe_world import ADA, EVE, World, world


def main(dsn: str, redis_url: str) -> None:
    """Run all of it, and print what was found."""
    at = psycopg.conninfo.conninfo_to_dict(dsn)
    database = {"HOST": at["host"], "PORT": at["port"], "USER": at["user"], "NAME": at["dbname"]}
    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}}, USE_TZ=True)
    django.setup()
    print(json.dumps(asyncio.run(_found(dsn, redis_url))))  # noqa: T201 - what the test reads


async def _found(dsn: str, redis_url: str) -> dict[str, Any]:
    from examples.recipes import django_orm as recipe  # a model needs the settings

    found: dict[str, Any] = {}
    async with world(dsn, redis_url) as here:
        found["at first"] = await here.served()
        await to_thread.run_sync(_in_thread, lambda: recipe.change(here.one, ADA, "by WSGI"))
        found["wsgi"] = await here.served()
        await sync_to_async(recipe.change)(here.one, ADA, "by ASGI")
        found["asgi"] = await here.served()
        found["within"] = await _at_length(here, recipe)
        found["at length"] = await here.served()
        found["too early, within"] = await _too_early(here, recipe)
        found["too early"] = await here.served()
        await here.one.invalidate(ADA)
        found["hooks"] = await to_thread.run_sync(_in_thread, lambda: _hooks(here, recipe))
        found["hooks, then"] = await here.served()
        found["unknown"] = await here.served(EVE)
        await sync_to_async(recipe.create)(here.one, EVE, "created")
        found["created"] = await here.served(EVE)
        await sync_to_async(connections.close_all)()
    return found


def _in_thread(work: Callable[[], Any]) -> Any:
    """Run work in a thread of its own, as a WSGI server does, and close its connections."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(work())
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done[0]


async def _at_length(here: World, recipe: Any) -> list[str | None]:
    seen: list[str | None] = []

    def work() -> None:
        seen.extend(from_thread.run(here.served))

    def change() -> None:
        recipe.change_at_length(here.one, ADA, "at length", work)
        connections.close_all()

    await to_thread.run_sync(change)
    return seen


async def _too_early(here: World, recipe: Any) -> list[str | None]:
    """Invalidate in the transaction instead of after it."""

    def change() -> list[str | None]:
        with transaction.atomic():
            recipe.Account.objects.filter(email=ADA).update(role="too early")
            here.one.invalidate_sync(ADA)
            seen = from_thread.run(here.served)
        connections.close_all()
        return seen

    return await to_thread.run_sync(change)


def _hooks(here: World, recipe: Any) -> list[int]:
    """Return how often users were invalidated: after a rollback, an open savepoint, one rolled back, and the COMMIT."""
    counts: list[int] = []
    calls: list[str] = []
    plugin = Counting(here.one, calls)

    class Undone(Exception):
        pass

    def undone(work: Callable[[], None]) -> None:
        try:
            with transaction.atomic():
                work()
                raise Undone
        except Undone:
            counts.append(len(calls))

    undone(lambda: recipe.change(plugin, ADA, "rolled back"))
    with transaction.atomic():
        recipe.change(plugin, ADA, "by hooks")
        counts.append(len(calls))
        undone(lambda: recipe.change(plugin, EVE, "rolled back"))
    counts.append(len(calls))
    return [*counts, calls.count(EVE)]


class Counting:
    """Invalidates as a plugin does, and counts.

    Args:
        plugin: invalidates.
        calls: is given each user.
    """

    def __init__(self, plugin: Any, calls: list[str]) -> None:
        self._plugin = plugin
        self._calls = calls

    def invalidate_sync(self, user: str) -> None:
        """Invalidate a user."""
        self._calls.append(user)
        self._plugin.invalidate_sync(user)


if __name__ == "__main__":
    main(*sys.argv[1:])
