"""The micro benchmarks of `bench/micro` as a table: the parser beside its oracle, microseconds for each input."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.results import FOLDER, end_in_order, markdown_table, scratch_folder, write_result, write_section


def measure(folder: Path, max_time_s: float) -> dict[str, dict[str, float]]:
    """Return, by input, the median microseconds of parser and oracle; RuntimeError with pytest's words when it fails."""
    output = folder / "benchmark.json"
    limits = [f"--benchmark-max-time={max_time_s}", "--benchmark-min-rounds=3", f"--benchmark-json={output}"]
    command = [sys.executable, "-m", "pytest", "-q", str(FOLDER / "micro"), "--benchmark-columns=median", *limits]
    result = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode:
        raise RuntimeError(result.stdout[-2000:] + result.stderr[-2000:])
    return medians(json.loads(output.read_text()))


def medians(report: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the medians of a pytest-benchmark report in microseconds: {group: {"parser": ..., "oracle": ...}}."""
    found: dict[str, dict[str, float]] = {}
    for one in report["benchmarks"]:
        who = "parser" if "[parser" in one["name"] else "oracle"
        found.setdefault(one["group"], {})[who] = round(one["stats"]["median"] * 1e6, 3)
    return found


def render_table(found: dict[str, dict[str, float]]) -> str:
    """Return the Markdown of `medians`."""
    rows = [
        [group, f"{pair['parser']:,.2f}", f"{pair['oracle']:,.1f}", f"{pair['oracle'] / pair['parser']:,.0f}×"]
        for group, pair in found.items()
    ]
    return markdown_table(["input", "parser µs", "oracle µs", "faster"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.parser_speed", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="a tenth of a second for each, nothing is written")
    options = parser.parse_args(arguments)
    end_in_order()
    with scratch_folder("/var/tmp") as folder:
        found = measure(folder, 0.1 if options.quick else 1.0)
    table = render_table(found)
    print(table)
    if not options.quick:
        path = write_result("parser-speed", {"medians_us": found})
        write_section("parser-speed", f"{table}\nFrom `results/{path.name}`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
