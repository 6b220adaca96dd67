"""Clients that keep a server busy with mails which prove themselves: each carries its number and a checksum
of its body.

So every file in the Maildir can be judged whole or not by itself, and every number that was answered 250 be
looked for.
"""

from __future__ import annotations

import hashlib
import random
import smtplib
import ssl
import threading
from pathlib import Path

from gateway import Gateway, wait_until

RECIPIENT = "load@example.org"
SIZES = (300, 4_000, 30_000, 200_000)  # the last goes through a spill file
PAUSE_S = 0.01  # of a client that was refused, so that it doesn't spin


class MailClient(threading.Thread):
    """Sends mail after mail until told to stop; `acknowledged` are the numbers of those answered 250.

    `trouble` is every end of a connection that wasn't a polite 421.
    """

    def __init__(self, gateway: Gateway, number: int, context: ssl.SSLContext | None = None) -> None:
        super().__init__(name=f"client-{number}")
        self._context = context
        self._gateway = gateway
        self._prefix = f"{number}-"
        self._random = random.Random(number)
        self._is_over = threading.Event()
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.trouble: list[str] = []

    def run(self) -> None:
        while not self._is_over.is_set():
            try:
                with smtplib.SMTP(self._gateway.host, self._gateway.port, "client.example", timeout=30) as smtp:
                    if self._is_welcome(smtp):
                        self._send_some(smtp)
            except smtplib.SMTPResponseException as error:
                if error.smtp_code != 421:
                    self.trouble.append(repr(error))
            except smtplib.SMTPRecipientsRefused as error:
                if any(code != 421 for code, _ in error.recipients.values()):
                    self.trouble.append(repr(error))
            except (OSError, smtplib.SMTPException) as error:
                self.trouble.append(repr(error))
            self._pause()

    def _pause(self) -> None:
        self._is_over.wait(PAUSE_S)

    def _is_welcome(self, smtp: smtplib.SMTP) -> bool:
        """Say EHLO, with a context by TLS. Left to itself, smtplib says HELO after a 421 and finds the connection ended."""
        if smtp.ehlo()[0] == 421:
            return False
        if self._context is None:
            return True
        smtp.starttls(context=self._context)
        return smtp.ehlo()[0] != 421

    def _send_some(self, smtp: smtplib.SMTP) -> None:
        for _ in range(self._random.randrange(1, 20)):
            if self._is_over.is_set():
                return
            self._send_one(smtp)

    def _send_one(self, smtp: smtplib.SMTP) -> None:
        mail_id = f"{self._prefix}{len(self.sent)}"
        self.sent.add(mail_id)
        smtp.sendmail("a@example.com", [RECIPIENT], make_mail(mail_id, self._random))
        self.acknowledged.add(mail_id)

    def end(self) -> None:
        """Finish the mail in hand, then be gone."""
        self._is_over.set()
        self.join()


class PacedClient(MailClient):
    """A connection for each mail, `per_second` of them; a late one is not made up for."""

    def __init__(self, gateway: Gateway, number: int, per_second: float, context: ssl.SSLContext | None = None) -> None:
        super().__init__(gateway, number, context)
        self._per_second = per_second

    def _send_some(self, smtp: smtplib.SMTP) -> None:
        self._send_one(smtp)

    def _pause(self) -> None:
        self._is_over.wait(1.0 / self._per_second)


class MailLoad:
    """Some clients at work: `with MailLoad(gateway, 4) as load`. With `context` they speak TLS after STARTTLS. With `per_second`
    they make so many connections a second together, and with a `context` too every other one speaks TLS."""

    def __init__(self, gateway: Gateway, count: int, context: ssl.SSLContext | None = None, *, per_second: float = 0.0) -> None:
        self._gateway = gateway
        self._clients: list[MailClient] = [
            PacedClient(gateway, number, per_second / count, context if number % 2 else None)
            if per_second
            else MailClient(gateway, number, context)
            for number in range(count)
        ]

    def __enter__(self) -> MailLoad:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *failure: object) -> None:
        for client in self._clients:
            client.end()

    @property
    def acknowledged(self) -> set[str]:
        return set[str]().union(*(client.acknowledged for client in self._clients))

    @property
    def sent(self) -> set[str]:
        return set[str]().union(*(client.sent for client in self._clients))

    @property
    def trouble(self) -> list[str]:
        return [text for client in self._clients for text in client.trouble]

    def wait_acknowledged(self, count: int) -> None:
        """Return when that many more mails were acknowledged."""
        wanted = sum(len(client.acknowledged) for client in self._clients) + count
        wait_until(
            f"{count} more mails are acknowledged",
            lambda: sum(len(client.acknowledged) for client in self._clients) >= wanted,
            30,
        )

    def await_mails(self, timeout_s: float = 60.0) -> list[str]:
        """The numbers of all mails in the Maildir once every acknowledged one is there; all of them whole."""
        acknowledged = self.acknowledged
        delivered: dict[Path, str] = {}

        def is_complete() -> bool:
            new = (path for path in self._gateway.mail_paths("load") if path not in delivered)
            delivered.update((path, read_mail_id(path)) for path in new)
            return acknowledged <= set(delivered.values())

        try:
            wait_until("every acknowledged mail is in the Maildir", is_complete, timeout_s)
        except AssertionError:
            lost = sorted(acknowledged - set(delivered.values()))
            raise AssertionError(f"{len(lost)} of {len(acknowledged)} lost: {lost[:20]}") from None
        assert set(delivered.values()) <= self.sent
        return list(delivered.values())


def make_mail(mail_id: str, chance: random.Random) -> bytes:
    """A mail that proves itself: X-Mail-Id, and X-Sum over its body as the Maildir holds it."""
    size = chance.choices(SIZES, (60, 25, 10, 5))[0]
    lines = [f".{mail_id} {chance.getrandbits(64):x}" * 3 for _ in range(size // 60)]
    body = "\n".join(lines) + "\n"
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f"X-Mail-Id: {mail_id}\nX-Sum: {digest}\n\n{body}".replace("\n", "\r\n").encode()


def read_mail_id(path: Path) -> str:
    """The number of a delivered mail; AssertionError when it isn't whole."""
    return whole_mail_id(path.read_bytes(), str(path))


def whole_mail_id(stored: bytes, where: str = "") -> str:
    """The number of a mail with bare line feeds; AssertionError when it isn't whole."""
    header, _, body = stored.partition(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in header.split(b"\n") if line.startswith((b"X-", b"x-")))
    assert hashlib.sha256(body).hexdigest().encode() == fields[b"X-Sum"], f"{where} is not whole"
    return fields[b"X-Mail-Id"].decode()
