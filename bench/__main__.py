"""All benchmarks, or those that are named, one after the other: `python -m bench [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import importlib
import sys

NAMES = ["compare", "idle", "busy_thread", "spread", "memory_mail", "parser_speed", "relay", "relay_hung", "backlog"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").strip())
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="short runs, nothing is written")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    codes = []
    for name in options.names or NAMES:
        print(f"--- {name}", file=sys.stderr)
        module, arguments = ("relay", ["--hung"]) if name == "relay_hung" else (name, [])
        code: int = importlib.import_module(f"bench.{module}").main(arguments + ["--quick"] * options.quick)
        codes.append(code)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
