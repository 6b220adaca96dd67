"""The check `access`: what is known of a client's network, its HELO, a sender or a recipient decides, from a list.

One rule is a line "kind pattern action [text]", in the configuration or in a file:

    client 192.0.2.0/24 reject 554 5.7.1 No mail from you
    helo .dynamic.example reject
    sender bulk.example tempfail
    sender <> pass
    recipient alice@example.org accept

The narrowest pattern wins: a longer network prefix, a whole address before its domain, a domain before ".domain", which takes all
below it. Files are read when the worker starts, so HUP reads them anew. Raises StartupError for a file that can't be used.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from smtpd.errors import StartupError
from smtpd.mail.address import AddressError, normal_domain
from smtpd.mail.changes import Discard, Hold
from smtpd.mail.verdict import END_ALL, END_STAGE, Verdict
from smtpd.policy.check import CONNECT, HELO, MAIL, RCPT, Check, CheckHost, Question
from smtpd.policy.networks import NetworkTable
from smtpd.policy.refusals import make_refusal
from smtpd.settings import Settings as WholeSettings
from smtpd.settings.key import Key
from smtpd.settings.section import Section

KINDS = {"client": CONNECT, "helo": HELO, "sender": MAIL, "recipient": RCPT}
ACTIONS = ("reject", "tempfail", "accept", "exempt", "hold", "discard", "pass")
_WORDS = {
    CONNECT: "Client host rejected: Access denied",
    HELO: "Helo command rejected: Access denied",
    MAIL: "Sender address rejected: Access denied",
    RCPT: "Recipient address rejected: Access denied",
}
_FILE_BYTES = 256 * 1024 * 1024
_FAULTS_SHOWN = 20


class AccessSettings(Section, frozen=True, kw_only=True):
    """Lists of clients, HELO names, senders and recipients, and what becomes of them."""

    rules: Annotated[
        list[str],
        Key(
            "Rules: client, helo, sender or recipient; a pattern; reject, tempfail, accept, exempt, hold, discard, pass; a text",
            kind="rule",
            example='["client 192.0.2.0/24 reject", "sender .bulk.example tempfail 450 4.7.1 Not now"]',
        ),
    ] = []  # noqa: RUF012 msgspec copies it
    file: Annotated[
        str, Key("More rules, one a line; read anew on HUP", kind="path", empty="no file", example='"/etc/smtpd/access"')
    ] = ""


class RuleError(ValueError):
    """What is wrong with one rule."""


class AccessCheck(Check):
    """Answers from memory. Asked only at the stages for which there are rules."""

    Settings = AccessSettings
    stages: tuple[str, ...] = (CONNECT, HELO, MAIL, RCPT)

    def __init__(self, settings: AccessSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        tables: dict[str, dict[str, Verdict | None]] = {stage: {} for stage in KINDS.values()}
        for _, line in _all_lines(settings):
            try:
                stage, pattern, verdict = parse_rule(line)
            except RuleError as error:
                raise StartupError(f"policy.check {host.name}: {error}", os.EX_CONFIG) from None
            tables[stage][pattern] = verdict
        self.stages = tuple(stage for stage in KINDS.values() if tables[stage])
        self._clients: NetworkTable[_Boxed] = NetworkTable({key: _Boxed(value) for key, value in tables[CONNECT].items()})
        self._helos = tables[HELO]
        self._senders = tables[MAIL]
        self._recipients = tables[RCPT]

    @classmethod
    def find_faults(cls, settings: AccessSettings, whole: WholeSettings) -> Iterable[tuple[str, str]]:
        """See Check."""
        if not settings.rules and not settings.file:
            yield "rules", "neither rules nor a file: nothing is ever checked"
        try:
            yield from _places(settings)
        except StartupError as error:
            yield "file", str(error)

    def ask(self, question: Question) -> Verdict | None:
        """See Check."""
        stage = question.stage
        if stage == RCPT:
            recipient = question.recipient
            assert recipient is not None
            return _find_mailbox(self._recipients, recipient.path, recipient.domain)
        if stage == MAIL:
            path = question.reverse_path
            if not path:
                return self._senders.get("<>")
            return _find_mailbox(self._senders, path, "")
        if stage == HELO:
            return _find_domain(self._helos, question.client.helo.decode("ascii", "replace").lower().removesuffix("."))
        boxed = self._clients.get(question.client.address)
        return None if boxed is None else boxed.verdict


class _Boxed:
    """A verdict in a table where None means that there is no entry."""

    __slots__ = ("verdict",)

    def __init__(self, verdict: Verdict | None) -> None:
        self.verdict = verdict


def _find_mailbox(table: dict[str, Verdict | None], path: bytes, domain: str) -> Verdict | None:
    mailbox = path.decode("utf-8", "replace").lower()
    if mailbox in table:
        return table[mailbox]
    return _find_domain(table, domain or _normal_or_same(mailbox.rpartition("@")[2]))


def _find_domain(table: dict[str, Verdict | None], domain: str) -> Verdict | None:
    if domain in table:
        return table[domain]
    rest = domain
    while "." in rest:
        rest = rest.partition(".")[2]
        if "." + rest in table:
            return table["." + rest]
    return None


def _normal_or_same(domain: str) -> str:
    if domain.isascii() and not domain.startswith("["):
        return domain
    try:
        return normal_domain(domain)
    except AddressError:
        return domain


def parse_rule(line: str) -> tuple[str, str, Verdict | None]:
    """Return (stage, pattern in its normal form, verdict; None = no objection, whatever a broader pattern says)."""
    words = line.split(None, 3)
    if len(words) < 3:
        raise RuleError(f"{line[:80]!r}: expected a kind, a pattern and an action")
    kind, pattern, action = words[0].lower(), words[1], words[2].lower()
    text = words[3] if len(words) > 3 else ""
    if kind not in KINDS:
        raise RuleError(f"{line[:80]!r}: {kind!r} is not one of {', '.join(KINDS)}")
    if action not in ACTIONS:
        raise RuleError(f"{line[:80]!r}: {action!r} is not one of {', '.join(ACTIONS)}")
    try:
        normal = _normal_pattern(kind, pattern)
    except ValueError as error:
        raise RuleError(f"{line[:80]!r}: {error}") from None
    stage = KINDS[kind]
    return stage, normal, _verdict(stage, action, text)


def _normal_pattern(kind: str, pattern: str) -> str:
    if kind == "client":
        return str(ipaddress.ip_network(pattern, strict=False))
    if pattern == "<>":
        if kind != "sender":
            raise ValueError("only a sender can be <>")
        return pattern
    local, at, domain = pattern.rpartition("@")
    if at and kind == "helo":
        raise ValueError("HELO has no '@'")
    dot = "." if domain.startswith(".") and not at else ""
    try:
        normal = normal_domain(domain.removeprefix(dot))
    except AddressError as error:
        raise ValueError(error.text) from None
    return f"{local.lower()}@{domain.lower()}" if at else dot + normal


def _verdict(stage: str, action: str, text: str) -> Verdict | None:
    if action == "reject":
        return Verdict(make_refusal(text or f"5.7.1 {_WORDS[stage]}", 554 if stage == CONNECT else 550))
    if action == "tempfail":
        return Verdict(make_refusal(text or f"4.7.1 {_WORDS[stage].replace('rejected', 'deferred')}", 450))
    if action == "accept":
        return Verdict(ending=END_STAGE, note=text)
    if action == "exempt":
        return Verdict(ending=END_STAGE if stage == RCPT else END_ALL, note=text)
    if action == "hold":
        return Verdict(changes=(Hold(text or "access list"),))
    if action == "discard":
        return Verdict(changes=(Discard(text or "access list"),))
    return None


def _all_lines(settings: AccessSettings) -> Iterator[tuple[str, str]]:
    """Yield ("rules" or "file", place, rule)."""
    for rule in settings.rules:
        yield "rules", rule
    if settings.file:
        for _, line in _file_lines(settings.file):
            yield "file", line


def _file_lines(path: str) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_size > _FILE_BYTES:
                raise StartupError(f"{path}: larger than {_FILE_BYTES >> 20} MiB", os.EX_CONFIG)
            for number, line in enumerate(file, 1):
                rule = line.strip()
                if rule and not rule.startswith("#"):
                    yield number, rule
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise StartupError(f"{path}: can't be read: {reason}", os.EX_CONFIG) from None


def _places(settings: AccessSettings) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with each rule."""
    seen: dict[tuple[str, str], str] = {}
    lines: list[tuple[str, str, str]] = [("rules", "", rule) for rule in settings.rules]
    found = 0
    for key, where, rule in lines:
        yield from _faults_of(key, where, rule, seen)
    if settings.file:
        for number, rule in _file_lines(settings.file):
            for fault in _faults_of("file", f"{settings.file}:{number}: ", rule, seen):
                yield fault
                found += 1
                if found == _FAULTS_SHOWN:
                    yield "file", f"{settings.file}: and perhaps more"
                    return


def _faults_of(key: str, where: str, rule: str, seen: dict[tuple[str, str], Any]) -> Iterator[tuple[str, str]]:
    try:
        stage, pattern, _ = parse_rule(rule)
    except RuleError as error:
        yield key, f"{where}{error}"
        return
    if (stage, pattern) in seen:
        yield key, f"{where}{rule[:80]!r}: there is a rule for {pattern!r} already"
    seen[stage, pattern] = rule
