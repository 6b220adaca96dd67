"""How many reports one address gets in an hour. Bounded memory: when it is full, the addresses counted longest are forgotten."""

from __future__ import annotations

_WINDOW_S = 3600.0
_MAX_ADDRESSES = 10_000


class SenderRate:
    """`most` reports in an hour that begins with the first, 0: no limit. Times are Unix seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counted: dict[bytes, tuple[float, int]] = {}  # address -> (begin, reports), earliest begin first

    def take(self, address: bytes, now_s: float) -> bool:
        """Whether one more may go to this address now; counts it if so."""
        if not self._most:
            return True
        key = address.lower()
        begin_s, count = self._counted.get(key, (now_s, 0))
        if not 0.0 <= now_s - begin_s < _WINDOW_S:  # over, or the clock was set back
            del self._counted[key]
            begin_s, count = now_s, 0
        if count >= self._most:
            return False
        if not count and len(self._counted) >= _MAX_ADDRESSES:
            del self._counted[next(iter(self._counted))]
        self._counted[key] = (begin_s, count + 1)
        return True
