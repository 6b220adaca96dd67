"""`smtpd sink`: take mail and throw it away, or misbehave as told, as a target for people who test senders.

The letters of the options are smtp-sink's (Postfix 3.7) where it has one; docs/sink.md tells how each is served.
"""

from __future__ import annotations

import functools
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import click

from smtpd.cli.parsed import Parsed
from smtpd.config.grammar import check_text
from smtpd.config.latency import normal_latency
from smtpd.config.units import parse_duration, parse_size
from smtpd.errors import StartupError, TlsFileError
from smtpd.net.listeners import ListenerSockets

if TYPE_CHECKING:
    from smtpd.sink.parts import SinkParts
    from smtpd.sink.target import Target

_LISTEN = "127.0.0.1:2525"
_COMMANDS = "COMMAND[:PERCENT],…"
_SIZE = Parsed("size", parse_size)
_DURATION = Parsed("duration", parse_duration)
_LATENCY = Parsed("latency", normal_latency)
_HOST = Parsed("host", lambda text: check_text("hostname", text))
_NETWORK = Parsed("network", lambda text: check_text("network", text))
_LOG = Parsed("destination", lambda text: check_text("log_destination", text))
_COUNT = click.IntRange(1)


def _commands(*names: str, help: str) -> Callable[[Any], Any]:
    return click.option(*names, multiple=True, metavar=_COMMANDS, help=help)


@click.command("sink", context_settings={"help_option_names": ["--help"]})
@click.argument("address", required=False, metavar="[[inet:][HOST]:PORT | unix:PATH]")
@click.argument("backlog", required=False, type=click.IntRange(1, 1 << 20))
@click.option("--listen", multiple=True, metavar="ADDRESS", help=f"The same by option; may be repeated.  [default: {_LISTEN}]")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(0, 256), help="0 = one per core.")
@click.option("--metrics", default="", metavar="ADDRESS", help="Serve /metrics there, e.g. 127.0.0.1:9025. Off by default.")
@click.option("--message-size", default="0", show_default=True, type=_SIZE, help="Refuse larger mails; 0 = no limit.")
@click.option("--tls", is_flag=True, help="Offer STARTTLS.")
@click.option("--tls-required", is_flag=True, help="The same, and refuse mail without it.")
@click.option("--tls-implicit", is_flag=True, help="TLS from the first octet.")
@click.option("--tls-cert", metavar="FILE", help="Certificate for that, PEM.  [default: one made on the spot]")
@click.option("--tls-key", metavar="FILE", help="Its key.  [default: in the same file]")
@click.option("--scenario", metavar="FILE", help="Behave as this TOML file says; options are asked first.")
@click.option("--seed", type=click.IntRange(0), help="Of all that is drawn.  [default: another one each time]")
@click.option("--report", metavar="FILE", help="Write a report in JSON at the end; - is stdout.")
@click.option("--log", default="stderr", show_default=True, type=_LOG, metavar="stderr|syslog|FILE", help="Where -v and -s go.")
@click.option("-4", "--ipv4", is_flag=True, help="Listen by IPv4 only.")
@click.option("-6", "--ipv6", is_flag=True, help="Listen by IPv6 only.")
@click.option("-8", "--no-8bitmime", is_flag=True, help="Do not offer 8BITMIME.")
@click.option("-a", "--no-auth", is_flag=True, help="Do not offer AUTH (it never is).")
@click.option("-A", "--abort", metavar="DELAY", type=_LATENCY, help="After 354 wait, then 550 and disconnect; 0 = at once.")
@click.option("-b", "--soft-reply", metavar="REPLY", help="The reply of -r.")
@click.option("-B", "--hard-reply", metavar="REPLY", help="The reply of -f.")
@click.option("-c", "--counters", is_flag=True, help="Show running counters: the live table, or lines on stdout.")
@click.option("--live/--no-live", default=None, help="The live table.  [default: where stderr is a terminal, without -v]")
@click.option("-C", "--no-xclient", is_flag=True, help="Do not offer XCLIENT (it never is).")
@click.option("-d", "--dump", metavar="TEMPLATE", help="Write each mail to a file of its own, named by strftime(3).")
@click.option("-D", "--dump-all", metavar="TEMPLATE", help="Append mails to one file, named by strftime(3).")
@click.option("-e", "--no-esmtp", is_flag=True, help="SMTP without ESMTP: EHLO is refused.")
@click.option("-E", "--no-enhanced-codes", is_flag=True, help="Do not offer ENHANCEDSTATUSCODES.")
@_commands("-f", "--hard-reject", help="Reject with 5xx; implies -p.")
@click.option("-F", "--no-xforward", is_flag=True, help="Do not offer XFORWARD (it never is).")
@click.option("-h", "--hostname", type=_HOST, help="In greeting, HELO and EHLO; the machine's by default.")
@click.option("-H", "--read-delay", metavar="DELAY", type=_LATENCY, help="After 354 read nothing for so long.")
@click.option("-L", "--lmtp", is_flag=True, help="LMTP instead of SMTP.")
@click.option("-m", "--max-sessions", type=_COUNT, help="At most so many at once, over all workers; others wait.")
@click.option("-M", "--exit-after", type=_COUNT, metavar="N", help="End after N mails.")
@click.option("-n", "--exit-after-sessions", type=_COUNT, metavar="N", help="End after N sessions.")
@click.option("-N", "--no-dsn", is_flag=True, help="Do not offer DSN.")
@click.option("-p", "--no-pipelining", is_flag=True, help="Do not offer PIPELINING.")
@click.option("--hide", multiple=True, metavar="KEYWORD", help="Do not offer this EHLO keyword; may be repeated.")
@click.option("--proxy", multiple=True, type=_NETWORK, metavar="NETWORK", help="Peers that must send a PROXY header; repeatable.")
@click.option("-P", "--pix", is_flag=True, help="Greet like a CISCO PIX; implies -e.")
@_commands("-q", "--disconnect", help="Disconnect without a reply.")
@_commands("-Q", "--close", help="Reply 421 and disconnect.")
@_commands("--reset", help="Disconnect by a TCP reset.")
@_commands("-r", "--soft-reject", help="Reject with 4xx; implies -p.")
@click.option("-R", "--root", metavar="DIRECTORY", help="Change the root directory; for root only.")
@click.option("-s", "--log-commands", multiple=True, metavar="COMMAND,…", help="Log these commands.")
@click.option("-S", "--dump-start", default="", metavar="TEXT", help="Before each mail in a dump; C escapes.")
@click.option("-t", "--timeout", type=_DURATION, metavar="TIME", help="For a command to come.  [default: 5 min, data 3 min]")
@click.option("-T", "--window", type=click.IntRange(1, 65535), metavar="SIZE", help="TCP window size in octets.")
@click.option("-u", "--user", metavar="USER", help="Switch to this user after binding; for root.")
@click.option("-v", "--verbose", is_flag=True, help="Log each connection, mail and dialogue.")
@click.option("-w", "--data-delay", metavar="DELAY", type=_LATENCY, help="Wait before the reply to DATA.")
@click.option("-W", "--delay", multiple=True, metavar="COMMAND:DELAY[:ODDS]", help="Wait before the reply to a command.")
def sink_command(address: str | None, backlog: int | None, **options: Any) -> int:
    """Take every mail and discard it: a benchmark target for senders, which can also misbehave.

    A DELAY is seconds, "200 ms", "uniform 1 s to 5 s", "normal 2 s +- 500 ms", "lognormal 200 ms sigma 0.8" or "exponential 2 s".
    A COMMAND is CONNECT, HELO, EHLO, LHLO, MAIL, RCPT, DATA, . (the end of a mail), RSET, NOOP, VRFY, QUIT and others.
    """
    from smtpd.sink.target import sink_settings

    user, root = options["user"] or "", options["root"] or ""
    _check_privileges(user, root)
    parts, seed = _make_parts(options)
    report = _open_report(options["report"])
    if root:
        _enter(root)
    run_dir = _make_run_dir(root)
    try:
        target = _make_target(address, backlog, options, run_dir)
        target = replace(target, **_tls_of(options, target.hostname, run_dir))
        if os.geteuid() == 0 and not user:
            _insist_on_user(target.listen)
        settings = sink_settings(target)
        return _run(settings, parts, seed, options, report)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _run(settings: Any, parts: SinkParts, seed: int, options: dict[str, Any], report: IO[str] | None) -> int:
    from smtpd.master.start import run_master
    from smtpd.sink.board import Board
    from smtpd.sink.figures import report_of, summarize
    from smtpd.worker.main import run_worker

    addresses: list[str] = []

    def announce(listeners: list[ListenerSockets], metrics: socket.socket | None) -> None:
        addresses.extend(listener.label for listener in listeners)
        if options["window"]:
            for listener in listeners:
                _set_window(listener, options["window"])
        drawn = f" (seed {seed})" if parts.draws else ""
        click.echo(f"smtpd sink: discarding all mail on {', '.join(addresses)}{drawn}", err=True)

    board = Board(*_display(options))
    started = time.time()
    code = run_master(
        settings, "sink", lambda: settings, functools.partial(run_worker, parts=parts), announce,
        before_run=board.watch, root="." if options["root"] else "", user_hint="say -u USER (-u root to stay root)",
    )  # fmt: skip
    total, workers, times = board.close()
    result = report_of(
        total, workers, started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)), listen=addresses, seed=seed,
        scenario=options["scenario"] or "", **times,
    )  # fmt: skip
    if report is None:
        click.echo(summarize(result), err=True)
    else:
        try:
            with report:
                report.write(json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise StartupError(f"can't write the report {options['report']}: {error.strerror}", os.EX_IOERR) from None
    return code


def _make_parts(options: dict[str, Any]) -> tuple[SinkParts, int]:
    """Every fault of options and scenario is told here, before anything is bound."""
    from smtpd.sink import options as words
    from smtpd.sink.parts import SinkParts, SinkWishes
    from smtpd.sink.plan import make_plan, rules_of
    from smtpd.sink.scenario import load_scenario

    scenario = load_scenario(options["scenario"]) if options["scenario"] is not None else None
    seed = options["seed"]
    if seed is None:
        seed = (scenario.seed if scenario is not None else 0) or secrets.randbelow(1 << 32)
    if options["dump"] and options["dump_all"]:
        raise click.UsageError("-d and -D can't be combined")
    behaviour = words.Behaviour(
        reset=options["reset"], disconnect=options["disconnect"], close=options["close"], hard=options["hard_reject"],
        soft=options["soft_reject"], hard_reply=options["hard_reply"] or words.HARD_REPLY,
        soft_reply=options["soft_reply"] or words.SOFT_REPLY, delays=options["delay"], data_delay=options["data_delay"] or "",
        read_delay=options["read_delay"] or "", abort_delay=options["abort"] or "",
        has_no_esmtp=options["no_esmtp"] or options["pix"],
    )  # fmt: skip
    try:
        rules = words.option_rules(behaviour)
        logged = frozenset(
            place for text in options["log_commands"] for places, _ in words.parse_commands(text) for place in places
        )
        start = words.unescape(options["dump_start"])
        hidden = {check_keyword(word) for word in options["hide"]}
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for name, keyword in (
        ("no_8bitmime", "8BITMIME"), ("no_enhanced_codes", "ENHANCEDSTATUSCODES"), ("no_dsn", "DSN"),
        ("no_pipelining", "PIPELINING"), ("hard_reject", "PIPELINING"), ("soft_reject", "PIPELINING"),
    ):  # fmt: skip
        if options[name]:
            hidden.add(keyword)
    if scenario is not None:
        rules += rules_of(scenario)
        hidden.update(scenario.hide)
    wishes = SinkWishes(
        options["max_sessions"] or 0, options["exit_after"] or 0, options["exit_after_sessions"] or 0,
        options["dump"] or options["dump_all"] or "", bool(options["dump_all"]), start,
        words.PIX_GREETING if options["pix"] else b"", options["verbose"],
    )  # fmt: skip
    return SinkParts(make_plan(seed, rules, hidden, logged), wishes), seed


def check_keyword(word: str) -> str:
    """Return an EHLO keyword in upper case that we know; ValueError."""
    from smtpd.config.faults import did_you_mean, quote
    from smtpd.settings.gateway import EHLO_KEYWORDS

    if word.upper() not in EHLO_KEYWORDS:
        raise ValueError(f"{quote(word)} is not one of {', '.join(EHLO_KEYWORDS)}{did_you_mean(word.upper(), EHLO_KEYWORDS)}")
    return word.upper()


def _make_target(address: str | None, backlog: int | None, options: dict[str, Any], run_dir: str) -> Target:
    from smtpd.sink.options import listen_addresses
    from smtpd.sink.target import Target

    listen: list[str] = []
    try:
        for text in (*([address] if address else ()), *options["listen"]) or (_LISTEN,):
            listen += listen_addresses(text, ipv4=options["ipv4"], ipv6=options["ipv6"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Target(
        tuple(dict.fromkeys(listen)),
        run_dir,
        options["hostname"] or socket.gethostname(),
        workers=options["workers"],
        metrics=options["metrics"],
        user=options["user"] or "",
        is_lmtp=options["lmtp"],
        is_dsn_offered=not options["no_dsn"],
        banner="" if options["no_esmtp"] else "ESMTP",
        backlog=backlog or 4096,
        proxies=options["proxy"],
        message_size=options["message_size"],
        timeout_s=options["timeout"] or 0.0,
        is_verbose=options["verbose"],
        log=options["log"],
    )


def _tls_of(options: dict[str, Any], hostname: str, run_dir: str) -> dict[str, Any]:
    """The fields of Target for TLS."""
    from smtpd.net.tls.certificates import read_certificate
    from smtpd.net.tls.self_made import make_certificate

    modes = {"tls": "starttls", "tls_required": "required", "tls_implicit": "implicit"}
    given = [mode for name, mode in modes.items() if options[name]]
    cert, key = options["tls_cert"] or "", options["tls_key"] or ""
    if len(given) > 1:
        raise click.UsageError("one of --tls, --tls-required and --tls-implicit")
    if (cert or key) and not given:
        raise click.UsageError("--tls-cert and --tls-key need --tls, --tls-required or --tls-implicit")
    if key and not cert:
        raise click.UsageError("--tls-key needs --tls-cert")
    if not given:
        return {}
    try:
        if not cert:
            cert, key = make_certificate(run_dir, *dict.fromkeys((hostname, "localhost")))
        read_certificate(cert, key)
    except TlsFileError as error:
        raise StartupError(str(error), os.EX_NOINPUT) from None
    return {"tls": given[0], "certificate": (cert, key)}


def _display(options: dict[str, Any]) -> tuple[str, Any]:
    """What the board shows, and where."""
    is_live = options["live"]
    if is_live is None:
        is_live = sys.stderr.isatty() and not options["verbose"] and not options["log_commands"]
    if is_live and sys.stderr.isatty():
        return "live", sys.stderr
    return ("lines", sys.stdout) if options["counters"] else ("", None)


# --- privileges and files ------------------------------------------------------------------------------------------------


def _check_privileges(user: str, root: str) -> None:
    if os.geteuid() != 0 and (user or root):
        raise StartupError(f"{'-u' if user else '-R'} is for a sink that root has started", os.EX_NOPERM)


def _insist_on_user(listen: tuple[str, ...]) -> None:
    from smtpd.master.start import is_local

    for address in listen:
        if not is_local(address):
            raise StartupError(f"started as root, listening on {address}: say -u USER (-u root to stay root)", os.EX_USAGE)


def _enter(root: str) -> None:
    try:
        os.chdir(root)
    except OSError as error:
        raise StartupError(f"can't enter {root}: {error.strerror}", os.EX_NOINPUT) from None


def _make_run_dir(root: str) -> str:
    """For the pid file and control sockets; with -R its path is good before and after the root changes."""
    return (
        tempfile.mkdtemp(prefix="smtpd-sink-") if not root else os.path.relpath(tempfile.mkdtemp(prefix="smtpd-sink-", dir="."))
    )


def _open_report(path: str | None) -> IO[str] | None:
    """Opened first: that it can't be written is no news for the end of a long run, and root's rights are still ours."""
    if path is None:
        return None
    if path == "-":
        return os.fdopen(os.dup(1), "w")
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise StartupError(f"can't write the report {path}: {error.strerror}", os.EX_CANTCREAT) from None


def _set_window(listener: ListenerSockets, size: int) -> None:
    for sock in listener.sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
