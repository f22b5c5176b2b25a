"""Where programs and archives that were fetched once are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def kept_folder() -> Path:
    """Return the folder for what is fetched: the virtual environment's, which is removed with it, or the user's."""
    environment = Path(sys.prefix)
    if sys.prefix != sys.base_prefix and os.access(environment, os.W_OK):
        return environment / "share" / "ctxmiddleware"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ctxmiddleware"
