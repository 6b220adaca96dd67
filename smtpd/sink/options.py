"""The words of the command line's options, which are smtp-sink's, as rules, addresses and octets. Raises ValueError only."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from smtpd import _parser as p
from smtpd.config.faults import did_you_mean, quote
from smtpd.config.latency import Latency, parse_latency
from smtpd.proto.conduct import CLOSE, RESET, STAY
from smtpd.sink.plan import PLACES, Act, Rule, make_refusal

SOFT_REPLY = "450 4.3.0 Error: command failed"
HARD_REPLY = "500 5.3.0 Error: command failed"
CLOSE_REPLY = "421 4.3.2 Error: command failed, closing"
ABORT_REPLY = "550 5.3.0 Error: this mail is not wanted"
NO_ESMTP_REPLY = "502 5.5.1 Error: command not implemented"
PIX_GREETING = b"*" * 50
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_MOST_PORT = 65535
_DATA = frozenset((p.VERB_DATA, p.VERB_BDAT))


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The options that make a sink behave, as they were given; each list holds one text for each time it was given."""

    reset: tuple[str, ...] = ()
    disconnect: tuple[str, ...] = ()  # -q
    close: tuple[str, ...] = ()  # -Q
    hard: tuple[str, ...] = ()  # -f
    soft: tuple[str, ...] = ()  # -r
    hard_reply: str = HARD_REPLY  # -B
    soft_reply: str = SOFT_REPLY  # -b
    delays: tuple[str, ...] = ()  # -W
    data_delay: str = ""  # -w
    read_delay: str = ""  # -H
    abort_delay: str = ""  # -A
    has_no_esmtp: bool = False  # -e, -P


def option_rules(wanted: Behaviour) -> list[Rule]:
    """The rules, delays first, then ends of the connection, then replies: those that decide come in smtp-sink's order."""
    rules = [_delay_rule(text) for text in wanted.delays]
    if wanted.data_delay:
        rules.append(Rule(_DATA, (Act(delay=parse_latency(wanted.data_delay)),)))
    if wanted.read_delay:
        rules.append(Rule(_DATA, (Act(hold=parse_latency(wanted.read_delay)),)))
    rules += _rules(wanted.reset, Act(ending=RESET))
    rules += _rules(wanted.disconnect, Act(ending=CLOSE))
    rules += _rules(wanted.close, Act(make_refusal(CLOSE_REPLY, CLOSE), CLOSE))
    if wanted.has_no_esmtp:
        rules.append(Rule(frozenset((p.VERB_EHLO,)), (Act(make_refusal(NO_ESMTP_REPLY, STAY)),)))
    rules += _rules(wanted.hard, Act(make_refusal(check_reply(wanted.hard_reply, "5"), STAY)))
    rules += _rules(wanted.soft, Act(make_refusal(check_reply(wanted.soft_reply, "4"), STAY)))
    if wanted.abort_delay:
        abort = Act(make_refusal(ABORT_REPLY, CLOSE), CLOSE, hold=parse_latency(wanted.abort_delay), cuts=True)
        rules.append(Rule(_DATA, (abort,)))
    return rules


def _rules(lists: Iterable[str], act: Act) -> list[Rule]:
    return [Rule(places, (act,), percent=percent) for text in lists for places, percent in parse_commands(text)]


def parse_commands(text: str) -> list[tuple[frozenset[int], float]]:
    """ "MAIL,RCPT:10 ." as places with percentages, which are 100 where none is given."""
    words = text.replace(",", " ").split()
    if not words:
        raise ValueError("no command is named")
    return [(_places(name), _percent(percent) if colon else 100.0) for name, colon, percent in (w.partition(":") for w in words)]


def _places(name: str) -> frozenset[int]:
    places = PLACES.get(name.lower())
    if places is None:
        names = [known.upper() for known in PLACES]
        raise ValueError(f"{quote(name)} is not one of {', '.join(names)}{did_you_mean(name.upper(), names)}")
    return frozenset(places)


def _percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise ValueError(f"{quote(text)} is not a percentage from 0 to 100")
    return percent


def _delay_rule(text: str) -> Rule:
    """-W command:delay[:odds]"""
    name, colon, rest = text.partition(":")
    delay, has_odds, odds = rest.partition(":")
    if not colon:
        raise ValueError(f"{quote(text)} has no delay: expected command:delay[:odds]")
    latency = parse_latency(delay)
    if has_odds:
        if not odds.isdigit() or not 1 <= int(odds) <= 99 or latency.kind != "fixed":
            raise ValueError(f"{quote(odds)}: odds are from 1 to 99, and belong to a fixed delay")
        latency = Latency("dice", latency.first, float(odds))
    return Rule(_places(name), (Act(delay=latency),))


def check_reply(text: str, first: str) -> str:
    """Return a reply that begins with this digit; ValueError for anything else."""
    is_reply = text[:3].isdigit() and text.isascii() and text.isprintable() and text[3:4] in ("", " ") and len(text) <= 500
    if not is_reply or text[:1] != first:
        raise ValueError(f'{quote(text)} is not a reply such as "{first}50 {first}.2.0 text"')
    return text


def unescape(text: str) -> bytes:
    r"""Return octets with \a \b \f \n \r \t \v \ddd and \\ of C replaced; other escapes are a ValueError."""

    def octet(match: re.Match[bytes]) -> bytes:
        word = match[1].decode("latin-1")
        if word[0] in "01234567":
            if int(word, 8) > 255:
                raise ValueError(f"\\{word} is no octet")
            return bytes([int(word, 8)])
        if word not in _ESCAPES:
            raise ValueError(f"\\{word} is not one of \\a \\b \\f \\n \\r \\t \\v \\ddd \\\\")
        return bytes([_ESCAPES[word]])

    return _ESCAPE.sub(octet, text.encode())


def listen_addresses(text: str, *, ipv4: bool, ipv6: bool) -> list[str]:
    """smtp-sink's "[inet:][host]:port" and "unix:path" as addresses of listeners. Names and services are looked up here; without
    a host it is every interface, by IPv4 and IPv6 where the machine has both, unless only one of them is wanted."""
    if text.startswith("unix:"):
        return [text]
    host, colon, port_text = text.removeprefix("inet:").rpartition(":")
    if not colon or not port_text:
        raise ValueError(f'{quote(text)} is not "[inet:][host]:port" or "unix:path"')
    number = port_text.removeprefix("-")
    if number.isdecimal() and (number != port_text or int(number) > _MOST_PORT):  # getaddrinfo would take it, modulo 65536
        raise ValueError(f"{quote(text)}: a port is a number from 0 to {_MOST_PORT}, or the name of a service")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    family = socket.AF_INET if ipv4 and not ipv6 else socket.AF_INET6 if ipv6 and not ipv4 else socket.AF_UNSPEC
    try:
        found = socket.getaddrinfo(host or None, port_text, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ValueError(f"{quote(text)}: {error.strerror}") from None
    addresses = []
    for kind, _, _, _, name in found:
        ip, port = str(name[0]), int(name[1])
        if kind == socket.AF_INET6 and not host and not socket.has_ipv6:
            continue
        address = f"[{ip}]:{port}" if kind == socket.AF_INET6 else f"{ip}:{port}"
        if address not in addresses:
            addresses.append(address)
    return addresses
