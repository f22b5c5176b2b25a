"""The README's blocks as apps, over the tests' own people in the place of a database."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from ctxmiddleware import ContextPlugin

from .people import plugin_of

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(block: str) -> dict[str, Any]:
    """Return the names of a block that was run as it stands, but for where its users come from."""
    names: dict[str, Any] = {}
    with patch.object(ContextPlugin, "from_env", plugin_of):
        exec(compile(block, "README.md", "exec"), names)
    return names


class Counting:
    """An ASGI layer that counts the calls of an app, and returns the count at /calls.

    Args:
        app: is called.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one connection for as long as the app has it."""
        if scope["type"] == "http" and scope["path"] == "/calls":
            await JSONResponse(self.under_way)(scope, receive, send)
            return
        self.under_way += scope["type"] != "lifespan"
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way -= scope["type"] != "lifespan"


def _shown(word: str) -> Counting:
    (block,) = (block for block in blocks("python") if word in block)
    return Counting(run(block)["app"])


# A server names the block by a word of it.
app = _shown(os.environ.get("SHOWN_BLOCK", "plugin.watch("))
