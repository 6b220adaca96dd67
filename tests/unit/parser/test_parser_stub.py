"""The documented face of the parser is what the module really has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = ".*__pyx_capi__\n"  # how Cython modules find each other's C functions


def test_stub_matches_module(tmp_path: Path) -> None:
    allowlist = tmp_path / "allowlist"
    allowlist.write_text(ALLOWED)
    modules = [f"smtpd.{name}" for name in ("_parser", "_scan", "_tally", "_text", "_wire", "_io")]
    command = [sys.executable, "-m", "mypy.stubtest", *modules, "--ignore-unused-allowlist"]
    result = subprocess.run(
        [*command, "--allowlist", str(allowlist)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
