"""Django, under WSGI and in the threads of synchronous views under ASGI: `transaction.on_commit` invalidates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.db import models, transaction

from ctxmiddleware import ContextPlugin


class Account(models.Model):  # type: ignore[misc]  # Django has no types
    """A user and a role."""

    email = models.TextField(primary_key=True)
    role = models.TextField()

    class Meta:
        """Where it is."""

        app_label = "recipes"
        db_table = "accounts"


def change(plugin: ContextPlugin[str], email: str, role: str) -> None:
    """Change a user, also within a transaction that is open already: the hook waits for the outermost COMMIT."""
    with transaction.atomic():
        Account.objects.filter(email=email).update(role=role)
        transaction.on_commit(partial(plugin.invalidate_sync, email))


def create(plugin: ContextPlugin[str], email: str, role: str) -> None:
    """Create a user; the cache may hold it as unknown until it is invalidated."""
    with transaction.atomic():
        Account.objects.create(email=email, role=role)
        transaction.on_commit(partial(plugin.invalidate_sync, email))


def change_at_length(plugin: ContextPlugin[str], email: str, role: str, work: Callable[[], None]) -> None:
    """Change a user in a transaction that may take longer than `settle`; the block of the plugin is the outer one."""
    with plugin.changing(email), transaction.atomic():
        Account.objects.filter(email=email).update(role=role)
        work()
