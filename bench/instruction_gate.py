"""Counts instructions a mail for the paths of PATHS in one valgrind, for a test that holds them to bench/instructions.toml.

`python -m bench.instruction_gate` prints what it counts, to be put there. Beside the mails a fixed piece of Python is counted, so
that the ceilings can be scaled to another build of Python or another compiler. Raises RuntimeError when valgrind counts nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.mail_instructions import ROOT, SESSIONS, TOGGLE, Rig, mail_steps

CEILINGS = Path(__file__).with_name("instructions.toml")
CALIBRATION = "calibration"
SIZE_BYTES = 4096
WARM_UP_MAILS = 10 * SESSIONS
MAILS = 15 * SESSIONS
SAME_BUILD = 0.05  # of the calibration: within it the ceilings hold as they stand
# `loop.stop()` makes callgrind write what it has counted and begin anew. Written so as not to begin as TOGGLE does: of two
# patterns that part at a "*" callgrind heeds one only.
_MARK = "*Loop_??stop"
# name -> engine of the rig, with log lines
PATHS: dict[str, tuple[str, bool]] = {
    "sink": ("discard", False),
    "serve": ("sqlite", False),
    "serve-with-log": ("sqlite", True),
}


def calibrate() -> int:
    """Do a fixed piece of work with attributes, calls, slices, a dictionary and formatting: what servers in Python do."""
    found: dict[bytes, int] = {}
    line = b"MAIL FROM:<alice@example.org> SIZE=4096"
    for number in range(2000):
        verb, _, rest = line.partition(b" ")
        found[verb.upper()] = found.get(verb, 0) + len(rest[number % 8 :])
        if rest.startswith(b"FROM:") and f"{number:x}"[-1:] == "f":
            found[b"%d" % (number & 63)] = number
    return len(found)


def run_paths() -> None:
    """Run inside valgrind: the calibration, then each path warmed up and for MAILS; ends the process."""
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-", ignore_cleanup_errors=True) as folder:
        gc.disable()
        for number, (engine, is_logging) in enumerate(PATHS.values()):
            place = f"{folder}/{number}"
            os.mkdir(place)
            rig = Rig(engine, place, is_logging)
            if not number:
                rig.loop.ready(calibrate)
                rig.loop.turn(0.0)
                rig.loop.stop()
                rig.loop.ready(calibrate)
                rig.loop.turn(0.0)
                rig.loop.stop()
            clients = rig.connect(SESSIONS)
            steps = mail_steps(SIZE_BYTES)
            for mails in (WARM_UP_MAILS, MAILS):
                for _ in range(mails // SESSIONS):
                    for octets, expected in steps:
                        rig.say(clients, octets, expected)
                rig.loop.stop()
    os._exit(0)  # threads and sessions have nothing left to lose


def count_instructions(timeout_s: float = 300.0) -> dict[str, float]:
    """Return instructions of a mail by path, and of the calibration."""
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-") as folder:
        output = Path(folder) / "callgrind.out"
        command = [
            "valgrind", "--tool=callgrind", f"--callgrind-out-file={output}",
            f"--toggle-collect={TOGGLE}", f"--dump-before={_MARK}",
            sys.executable, "-m", "bench.instruction_gate", "--inside",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        dumps = [output.with_name(f"{output.name}.{number}") for number in range(1, 2 * len(PATHS) + 3)]
        if result.returncode or not all(dump.exists() for dump in dumps):
            raise RuntimeError(f"callgrind counted nothing: {(result.stdout + result.stderr)[-2000:]}")
        counts = [_total(dump) for dump in dumps]
    by_mail = {name: counts[2 * number + 3] / MAILS for number, name in enumerate(PATHS)}
    return {CALIBRATION: counts[1], **by_mail}


def _total(dump: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{dump.name} has no total")
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Verdict:
    """`allowed` is the ceiling with its slack, scaled to this build."""

    path: str
    counted: float
    allowed: float

    @property
    def is_kept(self) -> bool:
        return self.counted <= self.allowed

    def __str__(self) -> str:
        over = self.counted / self.allowed - 1
        return f"{self.path}: {self.counted:,.0f} instructions a mail, {self.allowed:,.0f} allowed ({over:+.1%})"


def judge(counts: Mapping[str, float], ceilings: Mapping[str, Any]) -> list[Verdict]:
    """Hold what was counted to the ceilings; another build of Python has them scaled, with more slack. KeyError without one."""
    scale = counts[CALIBRATION] / ceilings[CALIBRATION]
    is_same = abs(scale - 1) <= SAME_BUILD
    slack = 1 + ceilings["slack_percent" if is_same else "slack_percent_elsewhere"] / 100
    factor = slack if is_same else slack * max(1.0, scale)
    return [Verdict(path, counts[path], ceilings["a_mail"][path] * factor) for path in counts if path != CALIBRATION]


def read_ceilings(path: Path = CEILINGS) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instruction_gate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="the same: it is short")
    options = parser.parse_args(arguments)
    if options.inside:
        run_paths()
    counts = count_instructions()
    print(f"calibration = {counts[CALIBRATION]:.0f}")
    verdicts = judge(counts, read_ceilings())
    for verdict in verdicts:
        print(f"{verdict.path} = {verdict.counted:.0f}  # {verdict}")
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
