"""All that a run is to do, made once from the command line, and what each of its processes gets of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from smtpd.load.maker import MailSpec
from smtpd.load.offer import NEVER, ClosedOffer, Offer, OpenOffer
from smtpd.load.target import Target

NO_LIMIT = 1 << 62
SERIES_ROWS = 600  # about so many at most


@dataclass(frozen=True)
class Plan:
    """`count` 0 = until `duration_s` is over, and the other way round; `rate` 0 = closed loop; `mails_per_connection` 0 = no
    limit. `tls` is "", "starttls" or "implicit". `proxy` is "", "v1" or "v2", `proxy_clients` a network, "" = ourselves;
    `xclient` a network too, "" = none."""

    target: Target
    mails: MailSpec
    workers: int = 1
    sessions: int = 1
    count: int = 1
    duration_s: float = 0.0
    rate: float = 0.0
    is_poisson: bool = False
    ramp_up_s: float = 0.0
    drain_s: float = 30.0
    mails_per_connection: int = 1
    pause_s: float = 0.0
    random_pause_s: float = 0.0
    hello: bytes = b"localhost"
    is_lmtp: bool = False
    uses_esmtp: bool = True
    uses_pipelining: bool = True
    uses_chunking: bool = False
    tls: str = ""
    tls_verify: bool = False
    tls_ca: str = ""
    tls_name: str = ""
    connect_tries: int = 1
    connect_timeout_s: float = 10.0
    reply_timeout_s: float = 30.0
    window_bytes: int = 0
    proxy: str = ""
    proxy_clients: str = ""
    xclient: str = ""
    is_verbose: bool = False

    @property
    def seed(self) -> int:
        return self.mails.seed

    @property
    def interval_s(self) -> float:
        """Of the series."""
        return float(max(1, round(self.duration_s / SERIES_ROWS)))

    def sessions_of(self, share: int) -> int:
        return share_of(self.sessions, share, self.workers)

    def ends_at(self, starts_at: float) -> float:
        return starts_at + self.duration_s if self.duration_s else NEVER

    def offer_of(self, share: int, starts_at: float) -> Offer:
        """What process `share` is to begin, from monotonic time `starts_at` on."""
        count = share_of(self.count, share, self.workers) if self.count else NO_LIMIT
        if not self.rate:
            return ClosedOffer(starts_at, count)
        return OpenOffer(
            starts_at,
            self.ends_at(starts_at),
            count,
            self.rate,
            share=share,
            shares=self.workers,
            ramp_up_s=self.ramp_up_s,
            random=Random(f"{self.seed}/{share}") if self.is_poisson else None,
        )


def share_of(whole: int, share: int, shares: int) -> int:
    """How many of the numbers 0 to whole-1 are `share`, counted by turns."""
    return whole // shares + (share < whole % shares)
