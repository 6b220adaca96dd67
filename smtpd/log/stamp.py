"""The beginning of a line: time, host, program. Made once a second for each program, since it is on every line.

A stream (stderr, a file) gets what syslogd would write, "Nov 24 03:49:21 host postfix/smtpd[1]: "; a syslog socket what
syslog(3) sends, "<22>Nov 24 03:49:21 postfix/smtpd[1]: " (RFC 3164; facility mail, the host is syslogd's to add).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from smtpd import _io

INFO = 6  # severities of RFC 3164
WARNING = 4
ERROR = 3
LEVEL_NAMES = {INFO: "info", WARNING: "warning", ERROR: "error"}

_INFO = INFO  # in a C variable of the module
_FACILITY_MAIL = 2 << 3
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Stamp:
    """`name` is the prefix of the programs ("postfix"). Local time in the header; `utc` is that of the last header made."""

    def __init__(self, name: str, hostname: str, is_syslog: bool, clock: Callable[[], float] | None = None) -> None:
        self.hostname = hostname
        self.pid = os.getpid()
        self.utc = ""
        self._name = name
        self._is_syslog = is_syslog
        self._clock = clock
        self._begin = self._end = 0.0
        self._local = ""
        self._headers: dict[str | tuple[str, int], str] = {}  # those of INFO by program alone

    def header(self, program: str, severity: int = INFO) -> str:
        """Return what stands before the text of a line of `program` now."""
        now = _io.unix_us() / 1e6 if self._clock is None else self._clock()
        if not self._begin <= now < self._end:  # the clock may also be set back
            self._turn(int(now))
        header = self._headers.get(program if severity == _INFO else (program, severity))
        return header or self._make(program, severity)

    def _turn(self, second: int) -> None:
        local = time.localtime(second)
        self._begin = float(second)
        self._end = second + 1.0
        self._local = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:2d} {local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}"
        self.utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        self._headers.clear()

    def _make(self, program: str, severity: int) -> str:
        header = f"{self._local} {self.hostname} {self._name}/{program}[{self.pid}]: "
        if self._is_syslog:
            header = f"<{_FACILITY_MAIL | severity}>{self._local} {self._name}/{program}[{self.pid}]: "
        self._headers[program if severity == _INFO else (program, severity)] = header
        return header
