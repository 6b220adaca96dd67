"""File systems of their own for tests: mounted for the time of a block."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from peers import require_peer


@contextmanager
def mounted(source: Path | str, target: Path, *options: str) -> Iterator[Path]:
    """Mount for the time of the block; skips (in CI: fails) where mounting is not allowed."""
    mount = require_peer("mount", "mount")
    target.mkdir(exist_ok=True)
    made = subprocess.run([mount, *options, str(source), str(target)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        text = f"mounting is not allowed here: {made.stderr.strip()}"
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(text)
        pytest.skip(text)
    try:
        yield target
    finally:
        subprocess.run([require_peer("mount", "umount"), "-l", str(target)], check=True)
