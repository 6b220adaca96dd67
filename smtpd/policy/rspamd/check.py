"""The check "rspamd": each mail is posted to rspamd's `/checkv2`, and its verdict and header changes are carried out.

One request a mail, where a milter takes a packet for each event. Raises what `http` and `answer` raise, which becomes `on_error`.
"""

from __future__ import annotations

from typing import Annotated

from smtpd.mail.verdict import Verdict
from smtpd.policy import check
from smtpd.policy.check import Check, CheckHost, Question
from smtpd.policy.rspamd.answer import judge, parse_answer
from smtpd.policy.rspamd.http import HttpClient
from smtpd.settings.endpoint import parse_filter_address
from smtpd.settings.key import Key
from smtpd.settings.section import TIB, Section

_ANSWER_BYTES = 4 << 20


class RspamdSettings(Section, frozen=True, kw_only=True):
    """rspamd's own HTTP protocol, the cheaper way than its milter."""

    address: Annotated[
        str,
        Key(
            'Where a worker "normal" (port 11333) or "proxy" of rspamd listens: "IPv4:port", "[IPv6]:port" or "unix:/path"',
            kind="filter_address",
            example='"127.0.0.1:11333"',
        ),
    ]
    connect_timeout: Annotated[float, Key("Longest time to connect", kind="duration", least=0.001, most=540.0)] = 5.0
    password: Annotated[str, Key("Password, where the worker asks for one", kind="line", empty="none")] = ""
    settings_id: Annotated[str, Key("Name of rspamd's settings to use", kind="line", empty="its default")] = ""
    greylist: Annotated[
        str,
        Key('What the action "greylist" means: with rspamd\'s own greylisting it never comes', choices=("accept", "defer")),
    ] = "accept"
    spam_header: Annotated[str, Key('Header field that says "Yes" for the action "add header"', kind="line", empty="none")] = (
        "X-Spam"
    )
    max_size: Annotated[int, Key("Larger mails are not scanned", kind="size", least=1024, most=TIB, zero="no limit")] = 0


class RspamdCheck(Check):
    """See the module."""

    Settings = RspamdSettings
    stages = (check.BODY,)
    reason = "content"
    timeout_s = 60.0
    is_independent = False  # it sees the changes of those before it

    def __init__(self, settings: RspamdSettings, host: CheckHost) -> None:
        super().__init__(settings, host)
        self._client = HttpClient(
            parse_filter_address(settings.address), connect_s=settings.connect_timeout, answer_bytes=_ANSWER_BYTES
        )

    def ask(self, question: Question) -> check.Answer:
        content = question.content
        assert content is not None
        if self.settings.max_size and content.size_bytes > self.settings.max_size:
            return None
        return self._ask(question, content)

    async def _ask(self, question: Question, content: check.Content) -> Verdict | None:
        settings = self.settings
        octets = await self._client.post("/checkv2", self._headers(question), lambda: aiter(content), content.size_bytes)
        return judge(
            parse_answer(octets),
            content.header,
            spam_header=settings.spam_header,
            defers_greylist=settings.greylist == "defer",
        )

    def close(self) -> None:
        self.host.side.call(self._client.close)

    def _headers(self, question: Question) -> list[tuple[bytes, bytes]]:
        client = question.client
        headers = [
            (b"User-Agent", b"smtpd"),
            (b"Pass", b"all"),
            (b"MTA-Name", self.host.hostname.encode()),
            (b"MTA-Tag", self.host.name.encode()),
            (b"Queue-Id", question.queue_id.encode()),
            (b"From", b"<" + (question.reverse_path or b"") + b">"),
            (b"Helo", client.helo),
            (b"Hostname", client.name.encode()),
        ]
        headers += [(b"Rcpt", b"<" + recipient.path + b">") for recipient in question.recipients]
        headers += [(b"Ip", client.address.encode())] if client.address else []
        headers += (
            [(b"TLS-Version", client.tls.version.encode()), (b"TLS-Cipher", client.tls.cipher.encode())] if client.tls else []
        )
        headers += [(b"Password", self.settings.password.encode())] if self.settings.password else []
        headers += [(b"Settings-Id", self.settings.settings_id.encode())] if self.settings.settings_id else []
        return [(name, _clean(value)) for name, value in headers]


def _clean(value: bytes) -> bytes:
    """What a client said, without what would end the field; octets above ASCII may stand in one (RFC 9110 5.5)."""
    return bytes(octet if octet > 31 and octet != 127 else 0x3F for octet in value).strip()
