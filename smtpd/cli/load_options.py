"""The options of `smtpd load` that say what is sent and how, and the plan that they make. Letters are those of smtp-source.

Whatever does not fit together is a click.UsageError or BadParameter, before anything is sent.
"""

from __future__ import annotations

import math
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import click

from smtpd.cli.parsed import Parsed
from smtpd.config.grammar import check_text
from smtpd.config.units import parse_duration, parse_size
from smtpd.errors import TlsFileError
from smtpd.load.addresses import parse_addresses
from smtpd.load.maker import MailSpec
from smtpd.load.messages import head_template, read_messages
from smtpd.load.plan import Plan
from smtpd.load.proxied import VERSIONS
from smtpd.load.sizes import parse_sizes
from smtpd.load.target import Target, find_public, find_target
from smtpd.net.tls.contexts import client_context

_DEFAULT_SIZE = "4KiB"
_DEFAULT_SUBJECT = "load {n}"


def parse_span(text: str) -> tuple[int, int]:
    """ "3" or "1-5" as least and most."""
    least, dash, most = text.partition("-")
    if not least.isdigit() or (dash and not most.isdigit()) or not 1 <= int(least) <= int(most or least) <= 100_000:
        raise ValueError(f'"{text}" is not a number of recipients such as "3" or "1-5"')
    return int(least), int(most or least)


DURATION = Parsed("duration", parse_duration)
NETWORK = Parsed("network", lambda text: check_text("network", text))
SIZE = Parsed("size", parse_size)
SIZES = Parsed("sizes", parse_sizes)
SPAN = Parsed("number", parse_span)
_COUNT = click.IntRange(1)

_OPTIONS = (
    # how much, how fast
    click.option("-s", "--sessions", type=_COUNT, help="Sessions at once (1; with --rate at most so many, 100)."),
    click.option("-m", "--count", type=_COUNT, help="Mails in all (1, unless there is a duration)."),
    click.option("--duration", type=DURATION, help="Begin no more mails after so long."),
    click.option("--rate", type=click.FloatRange(0.0, min_open=True), help="Open loop: mails a second, answered or not."),
    click.option("--poisson", is_flag=True, help="Mails of the open loop at random distances, not even ones."),
    click.option("--ramp-up", type=DURATION, default=0.0, metavar="DURATION", help="Reach all sessions, or the rate, so late."),
    click.option("--drain", type=DURATION, default="30s", show_default=True, help="Wait so long at the end for what is due."),
    click.option("--workers", type=click.IntRange(0, 256), default=1, show_default=True, help="Processes; 0 = one per core."),
    click.option("-w", "--wait", type=DURATION, default=0.0, metavar="DURATION", help="Each session waits between its mails."),
    click.option("-R", "--random-wait", type=DURATION, default=0.0, metavar="DURATION", help="So long at most, at random."),
    # connections
    click.option("-d", "--keep", is_flag=True, help="Keep connections open for the next mail."),
    click.option("--mails-per-connection", type=_COUNT, metavar="N", help="Close after N mails (1; with -d no limit)."),
    click.option("-C", "--connect-tries", type=_COUNT, default=1, show_default=True, help="How often to try a connection."),
    click.option("--connect-timeout", type=DURATION, default="10s", show_default=True),
    click.option("--timeout", type=DURATION, default="30s", show_default=True, help="For each reply."),
    click.option("-4", "is_four", is_flag=True, help="IPv4 only."),
    click.option("-6", "is_six", is_flag=True, help="IPv6 only."),
    click.option("-T", "--window", type=click.IntRange(1, 1 << 30), metavar="OCTETS", help="Buffers of the sockets."),
    click.option("--proxy", type=click.Choice(VERSIONS), help="Begin each connection with a PROXY header, as a front end does."),
    click.option("--proxy-clients", type=NETWORK, metavar="NETWORK", help="Whom it names, in turn; our own address by default."),
    click.option("--xclient", type=NETWORK, metavar="NETWORK", help="Name these clients by XCLIENT, in turn."),
    # protocol
    click.option("-L", "--lmtp", is_flag=True, help="LMTP."),
    click.option("-M", "--hostname", default="", help="Our name in EHLO and made-up addresses; the machine's by default."),
    click.option("-o", "--old", is_flag=True, help="HELO instead of EHLO, and mails without a header."),
    click.option("--pipelining/--no-pipelining", default=True, show_default=True, help="Use PIPELINING where it is offered."),
    click.option("--bdat", is_flag=True, help="BDAT instead of DATA where CHUNKING is offered."),
    click.option("--tls", is_flag=True, help="STARTTLS; without it a session fails."),
    click.option("--tls-implicit", is_flag=True, help="TLS from the first octet."),
    click.option("--tls-verify", is_flag=True, help="The certificate must be good for the target's name."),
    click.option("--tls-ca", metavar="FILE", default="", help="CA certificates for that; the system's by default."),
    click.option("--tls-name", metavar="NAME", default="", help="The name to ask and check for; the target's by default."),
    # mails
    click.option("-f", "--from", "senders", multiple=True, metavar="ADDRESS", help='Or "u{1-500}@example.org", "u{n}@…", @FILE.'),
    click.option("-t", "--to", "recipients", multiple=True, metavar="ADDRESS", help="The same. Both may be repeated."),
    click.option("-r", "--recipients", "span", type=SPAN, default="1", show_default=True, help='For each mail: "3", or "1-5".'),
    click.option("-N", "--unique", is_flag=True, help="A number of its own before each recipient."),
    click.option("--shuffle", is_flag=True, help="Pick senders and recipients at random, not in turn."),
    click.option("-l", "--length", type=SIZE, metavar="SIZE", help=f"Octets of the body ({_DEFAULT_SIZE}).", default=None),
    click.option("--size", "sizes", type=SIZES, help="uniform:1KiB-64KiB, lognormal:30KiB[:SIGMA[:MOST]], mix:70=4KiB,30=1MiB."),
    click.option("-S", "--subject", help="Places: {n}, {sender}, {recipient}, {run}, …  [default: load {n}]"),
    click.option("--header", "headers", multiple=True, metavar="LINE", help="One more line of the header, with places as well."),
    click.option("-F", "--mail", "mail_path", metavar="PATH", default="", help="Send this file, or *.eml of this folder."),
    click.option("--expand", is_flag=True, help="Fill in places in those files."),
    click.option("--seed", type=click.IntRange(0), help="Same seed, same sizes, addresses and times."),
    # safety, watching
    click.option("--allow-public", is_flag=True, help="The target may be a public address, and I may load it."),
    click.option("-v", "--verbose", is_flag=True, help="The dialogues on standard error."),
    click.option("-A", "goes_on", is_flag=True, hidden=True),  # smtp-source's "don't abort": we never do
)  # fmt: skip


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_plan(text: str, given: dict[str, Any]) -> Plan:
    """Return what is to be done; `given` are the values of `load_options`."""
    target = _find_target(text, given)
    _check_fit(given)
    sessions = given["sessions"] or (100 if given["rate"] else 1)
    count = given["count"] or (0 if given["duration"] else 1)
    workers = min(given["workers"] or os.cpu_count() or 1, sessions, count or sessions)
    kept = 0 if given["keep"] else 1
    tls = "implicit" if given["tls_implicit"] else "starttls" if given["tls"] else ""
    return Plan(
        target=target,
        mails=_make_mails(given),
        workers=workers,
        sessions=sessions,
        count=count,
        duration_s=given["duration"] or 0.0,
        rate=given["rate"] or 0.0,
        is_poisson=given["poisson"],
        ramp_up_s=given["ramp_up"],
        drain_s=given["drain"],
        mails_per_connection=given["mails_per_connection"] or kept,
        pause_s=given["wait"],
        random_pause_s=given["random_wait"],
        hello=_own_name(given),
        is_lmtp=given["lmtp"],
        uses_esmtp=not given["old"],
        uses_pipelining=given["pipelining"],
        uses_chunking=given["bdat"],
        tls=tls,
        tls_verify=given["tls_verify"],
        tls_ca=given["tls_ca"],
        tls_name=given["tls_name"],
        connect_tries=given["connect_tries"],
        connect_timeout_s=given["connect_timeout"],
        reply_timeout_s=given["timeout"],
        window_bytes=given["window"] or 0,
        proxy=given["proxy"] or "",
        proxy_clients=given["proxy_clients"] or "",
        xclient=given["xclient"] or "",
        is_verbose=given["verbose"],
    )


def _find_target(text: str, given: dict[str, Any]) -> Target:
    if given["is_four"] and given["is_six"]:
        raise click.UsageError("either -4 or -6, please")
    family = socket.AF_INET if given["is_four"] else socket.AF_INET6 if given["is_six"] else socket.AF_UNSPEC
    try:
        target = find_target(text, family)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="TARGET") from None
    strangers = find_public(target)
    if strangers and not given["allow_public"]:
        raise click.UsageError(
            f"{text} is a public address ({', '.join(strangers)}): loading somebody else's server is an attack. "
            "With --allow-public you say that you may."
        )
    return target


def _check_fit(given: dict[str, Any]) -> None:
    """What would be ignored without a word, or can't be."""
    pairs = (
        ("tls", "tls_implicit", "either --tls or --tls-implicit"),
        ("length", "sizes", "either --length or --size"),
        ("old", "lmtp", "either -o or -L"),
        ("old", "tls", "-o has no EHLO, so no STARTTLS"),
        ("old", "xclient", "-o has no EHLO, so no XCLIENT"),
        ("old", "bdat", "-o has no EHLO, so no BDAT"),
        ("old", "subject", "-o sends no header, so no -S"),
        ("old", "headers", "-o sends no header, so no --header"),
        ("mail_path", "length", "--mail sends files as they are: no -l"),
        ("mail_path", "sizes", "--mail sends files as they are: no --size"),
        ("mail_path", "subject", "--mail sends files as they are: no -S"),
        ("mail_path", "headers", "--mail sends files as they are: no --header"),
        ("mail_path", "old", "--mail sends files as they are, header and all: no -o"),
    )
    for one, other, text in pairs:
        if _is_given(given[one]) and _is_given(given[other]):
            raise click.UsageError(text)
    if given["rate"] and not math.isfinite(given["rate"]):
        raise click.UsageError("--rate is a number of mails a second")
    if given["rate"] and (given["wait"] or given["random_wait"]):
        raise click.UsageError("-w and -R are for sessions of the closed loop; --rate has times of its own")
    if given["poisson"] and not given["rate"]:
        raise click.UsageError("--poisson needs --rate")
    if given["expand"] and not given["mail_path"]:
        raise click.UsageError("--expand needs --mail")
    if given["tls_verify"] and not (given["tls"] or given["tls_implicit"]):
        raise click.UsageError("--tls-verify needs --tls or --tls-implicit")
    if given["tls_name"] and not (given["tls"] or given["tls_implicit"]):
        raise click.UsageError("--tls-name needs --tls or --tls-implicit")
    if given["proxy_clients"] and not given["proxy"]:
        raise click.UsageError("--proxy-clients needs --proxy")
    if given["tls_ca"] and not given["tls_verify"]:
        raise click.UsageError("--tls-ca needs --tls-verify")
    if given["tls_verify"]:
        try:
            client_context(True, given["tls_ca"])
        except TlsFileError as error:
            raise click.UsageError(str(error)) from None
    if given["duration"] is not None and given["duration"] <= 0:
        raise click.UsageError("a duration is longer than nothing")


def _is_given(value: object) -> bool:
    """Texts that were left out are None or empty, lists empty, switches False."""
    return value is not None and value is not False and value != () and value != ""


def _make_mails(given: dict[str, Any]) -> MailSpec:
    hello = _own_name(given)
    default = f"foo@{hello.decode()}"
    seed = given["seed"] if given["seed"] is not None else random.SystemRandom().getrandbits(32)
    least, most = given["span"]
    try:
        return MailSpec(
            senders=parse_addresses([text.strip("<>") for text in given["senders"]] or [default]),
            recipients=parse_addresses([text.strip("<>") for text in given["recipients"]] or [default]),
            sizes=given["sizes"] or parse_sizes(str(given["length"]) if given["length"] is not None else _DEFAULT_SIZE),
            head=b"" if given["old"] else head_template(_subject(given), given["headers"]),
            messages=tuple(read_messages(given["mail_path"])) if given["mail_path"] else (),
            is_expanding=given["expand"],
            least_recipients=least,
            most_recipients=most,
            is_unique=given["unique"],
            is_shuffled=given["shuffle"],
            hello=hello,
            run=f"{seed:x}".encode() if given["seed"] is not None else f"{time.time_ns():x}".encode(),
            seed=seed,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _subject(given: dict[str, Any]) -> str:
    return _DEFAULT_SUBJECT if given["subject"] is None else str(given["subject"])


def _own_name(given: dict[str, Any]) -> bytes:
    name: str = given["hostname"] or socket.gethostname()
    if not name.isascii() or not name.isprintable() or " " in name:
        raise click.UsageError(f"{name!r} is no name for EHLO")
    return name.encode()
