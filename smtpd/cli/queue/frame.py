"""What all queue commands share: the group, options, filters, how they end.

A running server's workers are asked over their control sockets; shards that nobody owns are read and changed here, under their
lock. What could not be asked is told on stderr, and the exit code is then 75 (EX_TEMPFAIL): the answer is not whole.
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

from smtpd.config import ConfigError, load_settings
from smtpd.config.units import parse_duration
from smtpd.control.client import QueueReader
from smtpd.control.commander import QueueCommander
from smtpd.control.filter import Filter
from smtpd.settings import Settings
from smtpd.spool.query import STATES


def _to_seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float:
    """The callback of an option that takes "1 h", "30 min", "2 d"."""
    try:
        return parse_duration(value) if value else 0.0
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def quits_quietly[**P](command: Callable[P, None]) -> Callable[P, None]:
    """A pager that is closed early ends the command with 0 (click would make it 1)."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
            sys.exit(os.EX_OK)

    return run


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-c", "config_path", metavar="FILE", type=click.Path(), help="The configuration file.")(command)


def json_option(text: str = "One JSON object.") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--json", "as_json", is_flag=True, help=text)


def filter_options(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command `wanted`, the Filter of these options."""

    @functools.wraps(command)
    def run(*args: Any, domain: str, sender: str | None, older: float, state: str | None, reason: str, **kwargs: Any) -> None:
        if sender is not None:
            sender = "" if sender.upper() == "MAILER-DAEMON" else sender.strip("<>")
        return command(*args, wanted=Filter(domain.rstrip("."), sender, older, state or "", reason), **kwargs)

    for option in reversed(
        (
            click.option("--domain", default="", metavar="DOMAIN", help='Mail for this domain; ".example.org" for all below it.'),
            click.option("--sender", metavar="ADDRESS", help='Mail from this address; "<>" for mail without one.'),
            click.option("--older", callback=_to_seconds, metavar="AGE", help='Mail that came longer ago, as "1 h" or "2 d".'),
            click.option("--state", type=click.Choice(STATES), help="Mail in this state."),
            click.option("--reason", default="", metavar="TEXT", help="Mail of which this was said last, or a part of it."),
        )
    ):
        run = option(run)
    return run


@click.group("queue")
def queue_group() -> None:
    """Look at the mail that waits, and change what becomes of it."""


def load(config_path: str | None) -> Settings:
    """Return the settings, or end as `smtpd check` does."""
    try:
        return load_settings(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def commander(config_path: str | None) -> QueueCommander:
    settings = load(config_path)
    return QueueCommander(settings.run_dir, settings.spool.path)


def end(reader: QueueReader) -> None:
    """Leave with 75 when not everybody could be asked."""
    sys.stdout.flush()
    for problem in reader.problems:
        print(f"smtpd: {safe(problem)}", file=sys.stderr)
    if reader.problems:
        sys.exit(os.EX_TEMPFAIL)


def print_object(data: dict[str, Any]) -> None:
    print(json.dumps(data))  # ASCII only: what peers sent moves no cursor


def complain(text: str) -> None:
    """Tell something on stderr."""
    print(f"smtpd: {safe(text)}", file=sys.stderr)


def time_text(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s))


def safe(text: str) -> str:
    """Return the text with everything escaped that could steer a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"
