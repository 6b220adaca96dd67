"""All parts of the benchmark, or those that are named, one after the other: `python -m bench [--quick] [--rounds N] [PART ...]`.

Each part ends by itself within its seconds and keeps what it has measured. An interrupt keeps what the running part has
done and ends the rest. A part that fails is named at the end; the others run nevertheless.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.part import INTERRUPTED
from bench.processes import NotReadyError


@dataclass(frozen=True, slots=True)
class Part:
    """`limit_s` is passed on as --limit where the part takes it (0: it is short by itself), as are --rounds."""

    shows: str
    limit_s: int = 0
    has_rounds: bool = False
    module: str = ""
    arguments: tuple[str, ...] = ()


PARTS = {
    "compare": Part("CPU per mail, throughput, commits: ours and all peers", 600, True),
    "half_load": Part("latency of end-of-data at half of each server's saturation", 480, True),
    "session_memory": Part("memory of an idle and of an active session", 120),
    "scaling": Part("1, 2 and 4 workers", 120, True),
    "sizes": Part("cost against size, 1 KB to 10 MB, and a mix", 360),
    "sessions": Part("cost against active sessions, 10 to 10,000", 240),
    "idle": Part("10,000 idle sessions on one worker"),
    "busy_thread": Part("the loop beside a busy thread"),
    "spread": Part("connections over workers"),
    "memory_mail": Part("a worker while a mail of 40 MB passes"),
    "parser_speed": Part("the parser alone"),
    "relay": Part("mail in and out again, beside Postfix", 300, True),
    "relay_hung": Part("beside a next hop that hangs", 120, True, "relay", ("--hung",)),
    "floods": Part("another client's mail beside floods"),
    "tls": Part("what TLS costs: CPU per mail and handshake, memory of an idle session", 0, True),
    "backlog": Part("a server with 200,000 deferred mails"),
}


def run_part(name: str, options: argparse.Namespace) -> int:
    """Run one part and return its exit code; what it can't cope with is printed."""
    part = PARTS[name]
    arguments = [*part.arguments]
    if options.quick:
        arguments.append("--quick")
    elif part.limit_s:
        arguments += ["--limit", str(part.limit_s)]
    if options.rounds and part.has_rounds:
        arguments += ["--rounds", str(options.rounds)]
    began = time.monotonic()
    print(f"--- {name}: {part.shows}", file=sys.stderr)
    try:
        code: int = importlib.import_module(f"bench.{part.module or name}").main(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = INTERRUPTED
    except (NotReadyError, OSError, ValueError, RuntimeError) as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    print(f"--- {name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    shown = "\n".join(f"  {name:16}{part.shows}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"parts:\n{shown}\n\nEach is also a program: python -m bench.PART --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="PART", help="default: all")
    parser.add_argument("--rounds", type=int, default=0, help="of the parts that compare in rounds (default: their own, 5)")
    parser.add_argument("--quick", action="store_true", help="short runs, nothing is written")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    failed = []
    for name in options.names or PARTS:
        code = run_part(name, options)
        if code:
            failed.append(name)
        if code == INTERRUPTED:
            return INTERRUPTED
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
