"""`smtpd queue list|show`: the mail that waits, of a running or a stopped server.

A running server's workers are asked over their control sockets; shards that nobody owns are read here, under their lock. What
could not be asked is told on stderr, and the exit code is then 75 (EX_TEMPFAIL): the list is not whole.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from smtpd.config import ConfigError, load_settings
from smtpd.config.units import parse_duration
from smtpd.control.client import QueueReader
from smtpd.control.wire import Filter, QueueEntry, QueueRecipient, Request
from smtpd.settings import Settings
from smtpd.spool.query import STATES

_MARKS = {"active": "*", "hold": "!", "deferred": " "}  # as postqueue -p


def _to_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    """The callback of an option that takes "1 h", "30 min", "2 d"."""
    try:
        return parse_duration(value) if value else 0.0
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _quits_quietly[**P](command: Callable[P, None]) -> Callable[P, None]:
    """A pager that is closed early ends the command with 0 (click would make it 1)."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
            sys.exit(os.EX_OK)

    return run


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-c", "config_path", metavar="FILE", type=click.Path(), help="The configuration file.")(command)


@click.group("queue")
def queue_group() -> None:
    """Look at the mail that waits."""


@queue_group.command("list")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the field names of postqueue -j.")
@click.option("--totals", "is_totals", is_flag=True, help="Only how many mails there are, how large, how old.")
@click.option("--domain", default="", metavar="DOMAIN", help='Mail for this domain; ".example.org" for all below it.')
@click.option("--sender", metavar="ADDRESS", help='Mail from this address; "<>" for mail without one.')
@click.option("--older", callback=_to_seconds, metavar="AGE", help='Mail that came longer ago, as "1 h" or "2 d".')
@click.option("--state", type=click.Choice(STATES), help="Mail in this state.")
@_quits_quietly
def list_command(
    config_path: str | None,
    as_json: bool,
    is_totals: bool,
    domain: str,
    sender: str | None,
    older: float,
    state: str | None,
) -> None:
    """List the mail that waits, with why; all filters given must hold."""
    settings = _load(config_path)
    reader = QueueReader(settings.run_dir, settings.spool.path)
    if sender is not None:
        sender = "" if sender.upper() == "MAILER-DAEMON" else sender.strip("<>")
    request = Request("list", Filter(domain.rstrip("."), sender, older, state or ""))
    totals = _Totals()
    show: Callable[[QueueEntry], None] = _print_json if as_json else _print_entry
    for entry in reader.entries(request):
        if not is_totals:
            if not as_json and not totals.messages:
                print(_HEADING)
            show(entry)
        totals.add(entry)
    if is_totals and as_json:
        _print_object(totals.as_dict())
    elif not as_json:
        print(totals.as_text())
    _end(reader)


@queue_group.command("show")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.argument("queue_id")
@_quits_quietly
def show_command(config_path: str | None, as_json: bool, queue_id: str) -> None:
    """Show one mail: its envelope and what became of each recipient."""
    settings = _load(config_path)
    reader = QueueReader(settings.run_dir, settings.spool.path)
    entry = reader.find(queue_id)
    if entry is None:
        print(f"smtpd: {_safe(queue_id)} is not in the queue", file=sys.stderr)
        _end(reader)
        sys.exit(os.EX_DATAERR)
    if as_json:
        _print_json(entry)
    else:
        _print_details(entry)
    sys.stdout.flush()


def _load(config_path: str | None) -> Settings:
    try:
        return load_settings(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def _end(reader: QueueReader) -> None:
    """Leave with 75 when not everybody could be asked."""
    sys.stdout.flush()
    for problem in reader.problems:
        print(f"smtpd: {problem}", file=sys.stderr)
    if reader.problems:
        sys.exit(os.EX_TEMPFAIL)


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
        mails = "1 mail" if self.messages == 1 else f"{self.messages} mails"
        return f"-- {kib} KiB in {mails} ({states}), the oldest of {_time_text(self.oldest_s)}"


_HEADING = "Queue ID              Size Arrival time        Sender / recipients"


def _print_entry(entry: QueueEntry) -> None:
    mark = _MARKS.get(entry.queue_name, " ")
    print(f"{_safe(entry.queue_id) + mark:<17}{entry.message_size:>9} {_time_text(entry.arrival_time)} {_safe(entry.sender)}")
    reason = None
    for recipient in entry.recipients:
        if recipient.delay_reason and recipient.delay_reason != reason:
            print(f"{'':>8}({_safe(recipient.delay_reason)})")
        reason = recipient.delay_reason
        print(f"{'':>47}{_safe(recipient.address)}")


def _print_details(entry: QueueEntry) -> None:
    client = f"{entry.client_name or 'unknown'}[{entry.client_address}]"
    rows = [
        ("queue id", entry.queue_id),
        ("state", "held" if entry.queue_name == "hold" else entry.queue_name),
        ("arrived", _time_text(entry.arrival_time)),
        ("size", f"{entry.message_size} octets" + (" (in a file of its own)" if entry.spill_file else "")),
        ("sender", entry.sender),
        ("client", f"{client} helo={entry.helo} proto={entry.protocol} listener={entry.listener}"),
        ("attempts", str(entry.attempts)),
    ]
    if entry.next_attempt_time:
        rows.append(("next attempt", _time_text(entry.next_attempt_time)))
    for name, value in rows:
        print(f"{name + ':':<14}{_safe(value)}")
    for recipient in entry.recipients:
        print(f"{'recipient:':<14}{_safe(recipient.address)}")
        if recipient.status:
            print(f"{'':<16}{_safe(_history(recipient))}")


def _history(recipient: QueueRecipient) -> str:
    times = "once" if recipient.attempts == 1 else f"{recipient.attempts} times"
    said = f": {recipient.delay_reason}" if recipient.delay_reason else ""
    last = _time_text(recipient.last_attempt_time)
    return f"{recipient.status} {recipient.dsn}, tried {times}, last {last} by {recipient.relay}{said}"


def _print_json(entry: QueueEntry) -> None:
    data = msgspec.json.encode(entry)
    if data.isascii():
        sys.stdout.write(data.decode("ascii") + "\n")
    else:
        _print_object(msgspec.to_builtins(entry))


def _print_object(data: dict[str, Any]) -> None:
    print(json.dumps(data))  # ASCII only: what peers sent moves no cursor


def _time_text(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def _safe(text: str) -> str:
    """Return the text with everything escaped that could steer a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
