"""SPF (RFC 7208) by pyspf, its look-ups answered by the worker's DNS.

Owns the threads on which pyspf, which waits for each look-up, runs: never the loop's. pyspf looks up through one function of its
module; ours finds by the thread whose DNS is meant. Ten look-ups and two void ones are pyspf's bounds. Raises nothing for a bad
record or DNS: that is a result.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from smtpd.net.dns_records import DnsRecords

MISSING = "the extra `auth` is not installed"
THREADS = 16  # of a worker; they mostly wait
LOOKUPS_S = 10.0  # for all look-ups of one evaluation
_KINDS = frozenset(("A", "AAAA", "MX", "PTR", "TXT"))
_current = threading.local()  # .evaluator: whose DNS this thread asks
_loaded: ModuleType | None = None
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SpfResult:
    """`result` is one of RFC 8601 2.7.2 ("pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"). `domain` is
    the one that was asked about, `is_helo` that it is HELO's; `text` is the domain's own explanation, or what is wrong."""

    result: str
    domain: str
    is_helo: bool = False
    text: str = ""


class SpfEvaluator:
    """One for each check; `close` ends its threads."""

    def __init__(self, records: DnsRecords) -> None:
        self._records = records
        self._threads = ThreadPoolExecutor(THREADS, "spf")
        self._loop: asyncio.AbstractEventLoop | None = None

    async def evaluate(self, address: str, sender: str, helo: str) -> SpfResult:
        """`sender` is "" for the null reverse-path; `address` an IP address, else there is no SPF. From the side thread."""
        is_helo = not sender
        domain = (sender.rpartition("@")[2] or helo).lower()
        if not address or "." not in domain or domain.startswith("["):
            return SpfResult("none", domain, is_helo)
        self._loop = asyncio.get_running_loop()
        result, text = await self._loop.run_in_executor(self._threads, self._evaluate, address, sender, helo)
        return SpfResult(result, domain, is_helo, text)

    def close(self) -> None:
        """End the threads when what they wait for is answered."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- on a thread of ours -----------------------------------------------------------------------------------------

    def _evaluate(self, address: str, sender: str, helo: str) -> tuple[str, str]:
        spf = _load()
        _current.evaluator = self
        try:
            query = spf.query(i=address, s=sender, h=helo, querytime=LOOKUPS_S)
            result, _, text = query.check()
        except spf.TempError as error:
            return "temperror", str(error)
        except (
            UnicodeError,
            ValueError,
            spf.PermError,
            spf.AmbiguityWarning,
        ) as error:  # pyspf lets some records through to these
            return "permerror", str(error)
        finally:
            _current.evaluator = None
        return str(result).lower(), str(text)

    def look_up(self, name: str, kind: str) -> list[tuple[tuple[str, str], Any]]:
        """What pyspf wants of DNS: ((name, kind), value)."""
        if kind not in _KINDS or self._loop is None:
            return []
        answer = asyncio.run_coroutine_threadsafe(self._records.ask(name, kind), self._loop).result(LOOKUPS_S)  # type: ignore[arg-type]
        if answer.is_failed:
            raise _load().TempError(f"DNS {answer.text}")
        values: list[Any] = list(answer.records)
        if kind == "MX":
            values = list(enumerate(answer.records))  # they come by preference
        elif kind == "TXT":
            values = [(record.encode("latin-1"),) for record in answer.records]
        return [((name, kind), value) for value in values]


def find_missing() -> str:
    """Return what hinders SPF, "" if nothing does."""
    return "" if find_spec("spf") is not None and find_spec("dns") is not None else MISSING


def _load() -> ModuleType:
    """Import pyspf and put our look-up into its place."""
    global _loaded
    with _lock:
        if _loaded is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its source is older than some warnings about it
                import spf
            spf.DNSLookup = _look_up
            _loaded = spf
    return _loaded


def _look_up(name: str, kind: str, strict: object = True, timeout: float = 0.0) -> list[tuple[tuple[str, str], Any]]:
    evaluator: SpfEvaluator = _current.evaluator
    try:
        return evaluator.look_up(name, kind)
    except (TimeoutError, CancelledError):
        raise _load().TempError("DNS no answer in time") from None
