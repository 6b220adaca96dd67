"""Makes each mail: its envelope and its octets, from what a run is to send (MailSpec).

The same seed and number of processes make the same mails. Compiled: runs once for each mail.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from smtpd.load.addresses import Addresses
from smtpd.load.messages import Calendar, Filler, Template
from smtpd.load.sizes import Sizes
from smtpd.mail.envelope import Envelope, Recipient
from smtpd.proto.client.transmission import Transmission

_NO_VALUES: dict[bytes, bytes] = {}


@dataclass(frozen=True)
class MailSpec:
    """`head` is the template of generated mails (b"" = none), `messages` are whole mails instead; `least_recipients` to
    `most_recipients` for each mail; with `is_unique` each address begins with a number of its own."""

    senders: Addresses
    recipients: Addresses
    sizes: Sizes
    head: bytes
    messages: tuple[bytes, ...] = ()
    is_expanding: bool = False
    least_recipients: int = 1
    most_recipients: int = 1
    is_unique: bool = False
    is_shuffled: bool = False
    hello: bytes = b"localhost"
    run: bytes = b"0"
    seed: int = 1


class MailMaker:
    """One process's."""

    __slots__ = (
        "_ascii_envelope", "_calendar", "_filler", "_fixed_size", "_head", "_id_end", "_indexes", "_messages",
        "_random", "_spec", "_values", "_wide_envelope",
    )  # fmt: skip

    def __init__(self, spec: MailSpec, share: int = 0) -> None:
        self._spec = spec
        self._random = random.Random(spec.seed * 1_000_003 + share)
        self._filler = Filler()
        self._calendar = Calendar()
        self._fixed_size = spec.sizes.fixed
        self._indexes = [list(range(count)) for count in range(spec.most_recipients + 1)]
        self._ascii_envelope: Envelope | None = None  # the one there is, where all mails have the same
        self._wide_envelope: Envelope | None = None
        self._values: dict[bytes, bytes] = {}
        self._id_end = b".%b@%b>" % (spec.run, spec.hello)
        constants = {b"run": spec.run, b"hello": spec.hello}
        sender, recipient = spec.senders.fixed, spec.recipients.fixed
        if sender is not None and recipient is not None and spec.most_recipients == 1 and not spec.is_unique:
            self._ascii_envelope = _envelope_of(sender, [recipient], True)
            self._wide_envelope = _envelope_of(sender, [recipient], False)
            constants |= {b"sender": sender, b"recipient": recipient, b"recipients": b"1"}
        self._head = Template(spec.head, True, constants)
        self._messages = [Template(text, spec.is_expanding, constants) for text in spec.messages]

    def make(self, number: int) -> Transmission:
        """The mail of this number."""
        envelope = self._ascii_envelope
        if envelope is None:
            envelope = self._make_envelope(number)
        content = self._make_content(number, envelope)
        if not content.isascii():
            if self._wide_envelope is not None:
                envelope = self._wide_envelope
            else:
                envelope.body = "8BITMIME"
        return Transmission(envelope, self._indexes[len(envelope.recipients)], content)

    def _make_envelope(self, number: int) -> Envelope:
        spec = self._spec
        count = spec.most_recipients
        if spec.least_recipients != count:
            count = self._random.randint(spec.least_recipients, count)
        place = number if not spec.is_shuffled else self._random.getrandbits(40)
        sender = spec.senders.pick(place)
        first = number * spec.most_recipients
        fixed = spec.recipients.fixed
        paths = []
        for i in range(count):
            if fixed is not None:
                path = fixed if count == 1 else b"%d%s" % (i + 1, fixed)
            else:
                path = spec.recipients.pick(first + i if not spec.is_shuffled else self._random.getrandbits(40))
            paths.append(b"%d%s" % (first + i, path) if spec.is_unique else path)
        return _envelope_of(sender, paths, True)

    def _make_content(self, number: int, envelope: Envelope) -> bytes:
        spec = self._spec
        template = self._head
        if self._messages:
            template = self._messages[number % len(self._messages)]
        head = template.expand(_NO_VALUES if template.is_fixed else self._values_of(number, envelope))
        if self._messages:
            return head
        size = self._fixed_size
        if size < 0:
            size = spec.sizes.draw(self._random)
        return head + self._filler.make(size)

    def _values_of(self, number: int, envelope: Envelope) -> dict[bytes, bytes]:
        """Of the places that aren't constant."""
        values = self._values
        digits = b"%d" % number
        values[b"n"] = digits
        values[b"date"] = self._calendar.now()
        values[b"message_id"] = b"<" + digits + self._id_end
        if self._ascii_envelope is None:
            values[b"sender"] = envelope.reverse_path
            values[b"recipient"] = envelope.recipients[0].path
            values[b"recipients"] = b"%d" % len(envelope.recipients)
        return values


def _envelope_of(sender: bytes, paths: list[bytes], is_ascii: bool) -> Envelope:
    is_utf8 = not (sender.isascii() and all(path.isascii() for path in paths))
    recipients = [Recipient(path, "") for path in paths]
    return Envelope(sender, recipients, "", "", b"", "ESMTP", 0.0, smtputf8=is_utf8, body="" if is_ascii else "8BITMIME")
