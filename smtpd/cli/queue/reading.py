"""`smtpd queue list|show|summary`: the mail that waits, of a running or a stopped server. Changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

import click
import msgspec

from smtpd.cli.queue.frame import (
    commander,
    complain,
    config_option,
    end,
    filter_options,
    json_option,
    mails,
    print_object,
    queue_group,
    quits_quietly,
    safe,
    time_text,
)
from smtpd.control.answer import AGE_LIMITS_S
from smtpd.control.filter import Filter
from smtpd.control.wire import QueueEntry, QueueRecipient, Request
from smtpd.spool.query import STATES

_MARKS = {"active": "*", "hold": "!", "deferred": " "}  # as postqueue -p


@queue_group.command("list")
@config_option
@json_option("One JSON object a line, with the field names of postqueue -j.")
@click.option("--totals", "is_totals", is_flag=True, help="Only how many mails there are, how large, how old.")
@filter_options
@quits_quietly
def list_command(config_path: str | None, as_json: bool, is_totals: bool, wanted: Filter) -> None:
    """List the mail that waits, with why; all filters given must hold."""
    reader = commander(config_path)
    totals = _Totals()
    show: Callable[[QueueEntry], None] = _print_json if as_json else _print_entry
    for entry in reader.entries(Request("list", wanted)):
        if not is_totals:
            if not as_json and not totals.messages:
                print(_HEADING)
            show(entry)
        totals.add(entry)
    suspended = reader.suspended()
    if is_totals and as_json:
        print_object({**totals.as_dict(), **({"suspended_routes": suspended} if suspended else {})})
    elif not as_json:
        print(totals.as_text())
        for route in suspended:
            print(f"-- route {safe(route)} is suspended")
    end(reader)


@queue_group.command("show", short_help="Show one mail.")
@config_option
@json_option("One JSON object; with --headers or --body their text is in it.")
@click.option("--headers", "is_header", is_flag=True, help="Only the header of the mail.")
@click.option(
    "--body", "is_body", is_flag=True, help="Only the body of the mail; with --headers the whole mail, octet for octet."
)
@click.argument("queue_id")
@quits_quietly
def show_command(config_path: str | None, as_json: bool, is_header: bool, is_body: bool, queue_id: str) -> None:
    """Show one mail: its envelope, what became of each recipient, its header."""
    reader = commander(config_path)
    content = "all" if is_body else "" if as_json and not is_header else "header"
    found = reader.find_with_content(queue_id, content)
    if found is None:
        complain(f"{queue_id} is not in the queue")
        end(reader)
        sys.exit(os.EX_DATAERR)
    entry, pieces = found
    if as_json:
        _print_with_content(entry, b"".join(pieces), is_header, is_body)
    elif is_body or is_header:
        _write_content(pieces if is_header else _after_header(pieces))
    else:
        _print_details(entry)
        print()
        _write_safely(pieces)
    end(reader)


@queue_group.command("summary", short_help="Count the mail that waits by domain and age.")
@config_option
@json_option()
@click.option("--by", type=click.Choice(["domain", "sender"]), default="domain", help="Domains of recipients, or of senders.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="So many domains.")
@filter_options
@quits_quietly
def summary_command(config_path: str | None, as_json: bool, by: str, top: int, wanted: Filter) -> None:
    """Show how many mails wait for each domain, by age in minutes (as qshape does)."""
    reader = commander(config_path)
    tally: dict[str, list[int]] = {}
    for line in reader.lines(Request("summary", wanted, by=by)):
        for domain, counts in (line.tally or {}).items():
            known = tally.setdefault(domain, [0] * len(counts))
            tally[domain] = [old + new for old, new in zip(known, counts, strict=True)]
    rows = sorted(tally.items(), key=lambda row: (-sum(row[1]), row[0]))
    columns = [f"{limit / 60:.0f}" for limit in AGE_LIMITS_S] + [f"{AGE_LIMITS_S[-1] / 60:.0f}+"]
    if as_json:
        shown = [{"domain": domain, "messages": sum(counts), "by_age": counts} for domain, counts in rows[:top]]
        print_object({"by": by, "age_limits_s": list(AGE_LIMITS_S), "domains": len(rows), "top": shown})
    else:
        total = [sum(counts[at] for counts in tally.values()) for at in range(len(columns))]
        width = max([20, *(min(40, len(domain)) for domain, _ in rows[:top])])
        print(f"{'':>{width}}{'T':>8}" + "".join(f"{name:>7}" for name in columns))
        for domain, counts in [("TOTAL", total), *rows[:top]]:
            print(f"{safe(domain or '-'):>{width}}{sum(counts):>8}" + "".join(f"{count:>7}" for count in counts))
        if len(rows) > top:
            print(f"-- and {len(rows) - top} more")
    end(reader)


def _print_with_content(entry: QueueEntry, data: bytes, is_header: bool, is_body: bool) -> None:
    shown = msgspec.to_builtins(entry)
    header, _, body = data.partition(b"\r\n\r\n") if not data.startswith(b"\r\n") else (b"", b"", data[2:])
    if is_header:
        shown["headers"] = header.decode("utf-8", "backslashreplace")
    if is_body:
        shown["body"] = body.decode("utf-8", "backslashreplace")
    print_object(shown)


def _after_header(pieces: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the octets behind the first empty line, wherever the pieces are cut."""
    head: bytes | None = b""
    for piece in pieces:
        if head is None:
            yield piece
            continue
        head += piece
        at = 2 if head.startswith(b"\r\n") else head.find(b"\r\n\r\n") + 4
        if at > 3 or head.startswith(b"\r\n"):
            yield head[at:]
            head = None


def _write_content(pieces: Iterable[bytes]) -> None:
    """Octets to a file or pipe, text that can't steer it to a terminal."""
    if sys.stdout.isatty():
        _write_safely(pieces)
        return
    sys.stdout.flush()
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _write_safely(pieces: Iterable[bytes]) -> None:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            print(_safe_line(line))
    if rest:
        print(_safe_line(rest))


def _safe_line(line: bytes) -> str:
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    return "\t".join(safe(part) for part in text.split("\t"))


class _Totals:
    """Counts by state, in octets and Unix seconds."""

    def __init__(self) -> None:
        self.messages = 0
        self.size_bytes = 0
        self.oldest_s = 0
        self.by_state = dict.fromkeys(STATES, 0)

    def add(self, entry: QueueEntry) -> None:
        self.messages += 1
        self.size_bytes += entry.message_size
        self.by_state["held" if entry.queue_name == "hold" else entry.queue_name] += 1
        if not self.oldest_s or entry.arrival_time < self.oldest_s:
            self.oldest_s = entry.arrival_time

    def as_dict(self) -> dict[str, int]:
        return {
            "messages": self.messages,
            "message_size": self.size_bytes,
            **self.by_state,
            "oldest_arrival_time": self.oldest_s,
        }

    def as_text(self) -> str:
        if not self.messages:
            return "Mail queue is empty"
        states = ", ".join(f"{count} {state}" for state, count in self.by_state.items() if count)
        kib = -(-self.size_bytes // 1024)
        return f"-- {kib} KiB in {mails(self.messages)} ({states}), the oldest of {time_text(self.oldest_s)}"


_HEADING = "Queue ID              Size Arrival time        Sender / recipients"


def _print_entry(entry: QueueEntry) -> None:
    mark = _MARKS.get(entry.queue_name, " ")
    print(f"{safe(entry.queue_id) + mark:<17}{entry.message_size:>9} {time_text(entry.arrival_time)} {safe(entry.sender)}")
    reason = None
    for recipient in entry.recipients:
        if recipient.delay_reason and recipient.delay_reason != reason:
            print(f"{'':>8}({safe(recipient.delay_reason)})")
        reason = recipient.delay_reason
        print(f"{'':>47}{safe(recipient.address)}")


def _print_details(entry: QueueEntry) -> None:
    client = f"{entry.client_name or 'unknown'}[{entry.client_address}]"
    rows = [
        ("queue id", entry.queue_id),
        ("state", "held" if entry.queue_name == "hold" else entry.queue_name),
        ("arrived", time_text(entry.arrival_time)),
        ("size", f"{entry.message_size} octets" + (" (in a file of its own)" if entry.spill_file else "")),
        ("sender", entry.sender),
        ("client", f"{client} helo={entry.helo} proto={entry.protocol} listener={entry.listener}"),
        ("attempts", str(entry.attempts)),
    ]
    if entry.next_attempt_time:
        rows.append(("next attempt", time_text(entry.next_attempt_time)))
    for name, value in rows:
        print(f"{name + ':':<14}{safe(value)}")
    for recipient in entry.recipients:
        print(f"{'recipient:':<14}{safe(recipient.address)}")
        if recipient.status:
            print(f"{'':<16}{safe(_history(recipient))}")


def _history(recipient: QueueRecipient) -> str:
    times = "once" if recipient.attempts == 1 else f"{recipient.attempts} times"
    said = f": {recipient.delay_reason}" if recipient.delay_reason else ""
    last = time_text(recipient.last_attempt_time)
    return f"{recipient.status} {recipient.dsn}, tried {times}, last {last} by {recipient.relay}{said}"


def _print_json(entry: QueueEntry) -> None:
    data = msgspec.json.encode(entry)
    if data.isascii():
        sys.stdout.write(data.decode("ascii") + "\n")
    else:
        print_object(msgspec.to_builtins(entry))
