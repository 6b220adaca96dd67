"""Real programs that tests talk to. A missing one skips the test locally and fails it where CI is set.

Nothing is started here: a test gets the path of the program and runs it itself.
"""

from __future__ import annotations

import os
import shutil

import pytest

# Debian keeps daemons and admin tools where a plain user's PATH does not look.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def require_peer(name: str, program: str) -> str:
    """Return the path of `program`, which peer `name` (its package) brings; skips or fails the test without it."""
    path = shutil.which(program, path=_SEARCH_PATH)
    if path is not None:
        return path
    text = f"peer not installed: {name} (program {program})"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)
