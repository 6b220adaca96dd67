"""The c-ares channel of a worker: one question to the name servers, one answer.

Owns the channel (by aiodns, imported and made at the first question, on the side thread and so after the fork). Keeps no answer
and bounds nothing but c-ares' own tries: that is for `lookup` (next hops) and `dns_records` (checks), who share it. c-ares asks
again over TCP when an answer is truncated and drops what is no answer to its question. Raises NoAnswerError alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from smtpd.net.side import SideThread
from smtpd.settings.delivery import DnsSettings

if TYPE_CHECKING:
    import aiodns

_TRIES = 2
_TYPES = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}


class NoAnswerError(Exception):
    """A question to which there is no answer: `is_absent` says that the name does not exist (NXDOMAIN), `is_empty` that it has
    no such records; otherwise DNS failed for now."""

    def __init__(self, text: str, is_absent: bool = False, is_empty: bool = False) -> None:
        super().__init__(text)
        self.is_absent = is_absent
        self.is_empty = is_empty

    @property
    def is_final(self) -> bool:
        return self.is_absent or self.is_empty


class DnsChannel:
    """`servers` are "address", "IPv4:port" or "[IPv6]:port"; none = the system's. `try_s` is how long one try at one server may
    take. `at_close` takes what closes the channel. Made anywhere, used on the side thread."""

    def __init__(
        self, servers: Sequence[str], try_s: float, at_close: Callable[[Callable[[], Awaitable[object]]], object]
    ) -> None:
        self._servers = list(servers)
        self._try_s = try_s
        self._at_close = at_close
        self._resolver: aiodns.DNSResolver | None = None

    async def query(self, name: str, kind: str) -> tuple[list[Any], float]:
        """Return the records of this kind, CNAMEs on the way followed by the server, and the least TTL of the answer."""
        from aiodns import error as codes

        try:
            result = await self.open().query_dns(name, kind)
        except codes.DNSError as error:
            number = error.args[0] if error.args else None
            is_absent = number in (codes.ARES_ENOTFOUND, codes.ARES_EBADNAME)
            raise NoAnswerError(words_of(error), is_absent, is_empty=number == codes.ARES_ENODATA) from None
        wanted = _TYPES[kind]
        records = [record.data for record in result.answer if record.type == wanted]
        if not records:
            raise NoAnswerError("no such records", is_empty=True)
        return records, min(float(record.ttl) for record in result.answer)

    def open(self) -> aiodns.DNSResolver:
        """Return aiodns' resolver, made now if there is none yet."""
        if self._resolver is None:
            import aiodns

            self._resolver = aiodns.DNSResolver(nameservers=self._servers or None, timeout=self._try_s, tries=_TRIES)
            self._at_close(self._close)
        return self._resolver

    async def _close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()
            self._resolver = None


def open_channel(settings: DnsSettings, side: SideThread) -> DnsChannel:
    """The channel of these settings; nothing is opened before the first question."""
    return DnsChannel(settings.servers, max(settings.timeout / 6, 0.05), side.at_close)


def words_of(error: BaseException) -> str:
    """The text of an error of aiodns."""
    words = error.args[1] if len(error.args) > 1 else error
    return words.decode("ascii", "replace") if isinstance(words, bytes) else str(words)
