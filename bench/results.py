"""Where figures go: one JSON file a run under bench/results/, and a table between two markers of bench/README.md."""

from __future__ import annotations

import datetime
import json
import os
import re
import resource
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.machine import describe_machine

FOLDER = Path(__file__).resolve().parent
README = FOLDER / "README.md"
COMPLETE = "complete"  # how a run ended that nothing cut short


def write_result(name: str, content: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Write `content`, with the machine and the day, to results/DATE-NAME.json and return its path."""
    now = datetime.datetime.now(datetime.UTC)
    path = (folder or FOLDER / "results") / f"{now:%Y-%m-%d}-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"name": name, "at": now.isoformat(timespec="seconds"), "machine": describe_machine(), **content}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def replace_section(text: str, name: str, section: str) -> str:
    """Return `text` with what stands between <!-- NAME:begin --> and <!-- NAME:end --> replaced; ValueError without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new, count = pattern.subn(lambda _: f"{begin}\n{section.strip()}\n{end}", text)
    if count != 1:
        raise ValueError(f"{count} places between {begin} and {end}, one is needed")
    return new


def write_section(name: str, section: str) -> None:
    """Put `section` between the markers `name` of bench/README.md."""
    README.write_text(replace_section(README.read_text(encoding="utf-8"), name, section), encoding="utf-8")


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are aligned as numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"


def report(name: str, content: Mapping[str, Any], lines: list[str], is_quick: bool) -> None:
    """Print the lines of a finished run; unless it was a quick one, keep it as JSON and in README's section `name`."""
    text = "\n".join(f"- {line}" for line in lines)
    print(text)
    if not is_quick:
        path = write_result(name, content)
        write_section(name, f"{text}\n\nFrom `results/{path.name}`.")


def p99(values: list[float]) -> float:
    """Return the 99th percentile: the smallest value that at least 99 % of all don't exceed."""
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]


@contextmanager
def scratch_folder(parent: str) -> Iterator[Path]:
    """A folder for spools and queues that other users may enter (Postfix runs as one), removed at the end."""
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-", dir=parent, ignore_cleanup_errors=True) as name:
        os.chmod(name, 0o755)
        yield Path(name)


def end_in_order() -> None:
    """Let TERM be an interrupt (and INT, where a shell has it ignored): what was started is ended, what was measured kept."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def raise_open_files(wanted: int) -> None:
    """Raise this process's limit of open files (its children inherit it); OSError when the hard limit is below."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(f"{wanted} open files are needed, the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
