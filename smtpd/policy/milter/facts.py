"""What is told of a session: its events and the values of macros, from the questions that a check is asked.

Owns the events of one session that hold now. Built anew from each question, so that a check that is not asked at a stage, and a
recipient that a later check refused, make no difference. Belongs to whoever asks; the events are never changed.
"""

from __future__ import annotations

from smtpd.mail import envelope as env
from smtpd.mail.envelope import Recipient
from smtpd.policy import check
from smtpd.policy.check import Client, Question
from smtpd.policy.milter import wire
from smtpd.policy.milter.conversation import Event
from smtpd.proto.params import MailParameters

_NOTIFY = ((env.NOTIFY_SUCCESS, b"SUCCESS"), (env.NOTIFY_FAILURE, b"FAILURE"), (env.NOTIFY_DELAY, b"DELAY"))


class SessionFacts:
    """`values` are those of macros that hold for the whole gateway and listener, by normal name."""

    __slots__ = ("_client", "_connect", "_data", "_helo", "_helo_name", "_mail", "_recipients", "_values")

    def __init__(self, client: Client, values: dict[bytes, bytes]) -> None:
        self._client = client
        self._values = {**values, **_client_values(client)}
        port = client.port if client.address else 0
        name = client.name if client.name != "unknown" else f"[{client.address}]" if client.address else "localhost"
        self._connect = Event(wire.CONNECT, wire.make_connect(name.encode(), client.address, port), self._values)
        self._helo_name = b""
        self._helo: Event | None = None
        self.end_transaction()

    def end_transaction(self) -> None:
        """The next mail is another one."""
        self._mail: Event | None = None
        self._recipients: list[tuple[Recipient, Event]] = []
        self._data: Event | None = None

    def events(self, question: Question) -> list[Event]:
        """Return all events that hold now, in order; the last one is what the question is about."""
        client = question.client
        if client.helo and (self._helo is None or client.helo != self._helo_name or question.stage == check.HELO):
            self._helo_name = client.helo
            self._helo = Event(wire.HELO, wire.make_strings(wire.HELO, client.helo), self._helo_values(client))
        events = [self._connect] if self._helo is None else [self._connect, self._helo]
        if question.reverse_path is None:
            return events
        if self._mail is None:
            self._mail = _mail_event(question.reverse_path, question.parameters, self._values)
        events.append(self._mail)
        self._gather_recipients(question)
        events += [event for _, event in self._recipients]
        if question.stage in (check.DATA, check.BODY):
            self._data = self._data or Event(wire.DATA, wire.make_packet(wire.DATA), self._values)
            events.append(self._data)
        return events

    def content_values(self, question: Question) -> dict[bytes, bytes]:
        """Return the values for the content."""
        return {**self._values, b"i": question.queue_id.encode()}

    def _gather_recipients(self, question: Question) -> None:
        wanted = [*question.recipients, *(() if question.recipient is None else (question.recipient,))]
        known = {id(recipient): event for recipient, event in self._recipients}
        # what the filter itself refused stays, since it knows of it; the order is that of the client
        held = {id(recipient) for recipient in wanted}
        self._recipients = [entry for entry in self._recipients if entry[1].is_refused or id(entry[0]) in held]
        for recipient in wanted:
            if id(recipient) not in known:
                self._recipients.append((recipient, _rcpt_event(recipient, self._values)))

    def _helo_values(self, client: Client) -> dict[bytes, bytes]:
        if client.tls is None:
            return self._values
        tls = client.tls
        values = {
            b"{tls_version}": tls.version.encode(),
            b"{cipher}": tls.cipher.encode(),
            b"{cipher_bits}": b"%d" % tls.cipher_bits,
        }
        if tls.client_subject:
            values[b"{cert_subject}"] = tls.client_subject.encode()
        if tls.client_issuer:
            values[b"{cert_issuer}"] = tls.client_issuer.encode()
        self._values = {**self._values, **values}
        return self._values


def _client_values(client: Client) -> dict[bytes, bytes]:
    address = f"IPv6:{client.address}" if ":" in client.address else client.address
    name = client.name.encode()
    return {
        b"_": b"%b [%b]" % (name, address.encode()),
        b"{client_name}": name,
        b"{client_ptr}": name,
        b"{client_addr}": client.address.encode() or b"unknown",
        b"{client_port}": b"%d" % client.port,
        b"{client_resolve}": b"FAIL" if client.name == "unknown" else b"OK",
        b"{client_connections}": b"0",  # Postfix's word for a client that no limit counts
    }


def _mail_event(reverse_path: bytes, parameters: MailParameters | None, values: dict[bytes, bytes]) -> Event:
    host = reverse_path.rpartition(b"@")[2] if b"@" in reverse_path else b""
    more = {**values, b"{mail_addr}": reverse_path, b"{mail_host}": host, b"{mail_mailer}": b"smtp"}
    arguments = []
    if parameters is not None:
        arguments += [b"SIZE=%d" % parameters.size_bytes] if parameters.size_bytes else []
        arguments += [b"BODY=" + parameters.body.encode()] if parameters.body else []
        arguments += [b"SMTPUTF8"] if parameters.is_smtputf8 else []
        arguments += [b"RET=" + parameters.ret.encode()] if parameters.ret else []
        arguments += [b"ENVID=" + parameters.envid] if parameters.envid else []
    return Event(wire.MAIL, wire.make_strings(wire.MAIL, b"<" + reverse_path + b">", *arguments), more)


def _rcpt_event(recipient: Recipient, values: dict[bytes, bytes]) -> Event:
    more = {
        **values, b"{rcpt_addr}": recipient.path, b"{rcpt_host}": recipient.domain.encode(), b"{rcpt_mailer}": b"smtp",
    }  # fmt: skip
    arguments = []
    if recipient.notify == env.NOTIFY_NEVER:
        arguments.append(b"NOTIFY=NEVER")
    elif recipient.notify:
        arguments.append(b"NOTIFY=" + b",".join(word for bit, word in _NOTIFY if recipient.notify & bit))
    arguments += [b"ORCPT=" + recipient.orcpt] if recipient.orcpt else []
    return Event(wire.RCPT, wire.make_strings(wire.RCPT, b"<" + recipient.path + b">", *arguments), more)
