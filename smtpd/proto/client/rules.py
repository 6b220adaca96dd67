"""What a route lets a client session do. Made once for each route, shared by its sessions, never changed."""

from __future__ import annotations

TLS_OFF = 0
TLS_MAY = 1
TLS_REQUIRE = 2
TLS_MODES = {"off": TLS_OFF, "may": TLS_MAY, "require": TLS_REQUIRE}


class ClientRules:
    """`hello_name` is what we call ourselves; `tls` and `refused_early` are the words of the settings.

    `uses_pipelining = False` ignores a next hop's PIPELINING, `uses_chunking = False` its CHUNKING, `uses_esmtp = False` says
    HELO at once.
    """

    __slots__ = ("believes_early", "hello_name", "is_lmtp", "tls", "uses_chunking", "uses_esmtp", "uses_pipelining")

    def __init__(
        self,
        hello_name: bytes,
        *,
        is_lmtp: bool = False,
        tls: str = "may",
        uses_chunking: bool = True,
        uses_pipelining: bool = True,
        uses_esmtp: bool = True,
        refused_early: str = "defer",
    ) -> None:
        self.hello_name = hello_name
        self.is_lmtp = is_lmtp
        self.tls = TLS_MODES[tls]
        self.uses_chunking = uses_chunking
        self.uses_pipelining = uses_pipelining
        self.uses_esmtp = uses_esmtp
        self.believes_early = refused_early == "bounce"
