"""The master's log: written at once, without a thread (it forks) and without ever waiting. What can't be written is counted and
reported by the next line that can.
"""

from __future__ import annotations

import os
import stat

from smtpd.log.maillog import make_shape
from smtpd.log.output import SYSLOG_PATH, DescriptorOutput, Output, no_patience, open_output
from smtpd.log.stamp import ERROR, INFO, WARNING
from smtpd.settings import LogSettings

_STDERR = 2


class MasterLog:
    """Messages of the process that supervises. `dropped` counts the lines lost."""

    def __init__(self, settings: LogSettings, hostname: str, *, syslog_path: str = SYSLOG_PATH) -> None:
        self.dropped = 0
        self._announced = 0
        self._syslog_path = syslog_path
        self._settings = settings
        self._shape = make_shape(settings, hostname)
        self._output = self._open()

    def info(self, component: str, text: str, **fields: object) -> None:
        self._write(self._shape.message(INFO, component, text, fields))

    def warning(self, component: str, text: str, **fields: object) -> None:
        self._write(self._shape.message(WARNING, component, text, fields))

    def error(self, component: str, text: str, **fields: object) -> None:
        self._write(self._shape.message(ERROR, component, text, fields))

    def change(self, settings: LogSettings, hostname: str) -> None:
        """Go on with settings that were read anew."""
        self._shape = make_shape(settings, hostname)
        if settings.destination != self._settings.destination:
            self._output.close()
            self._settings = settings
            self._output = self._open()
        self._settings = settings

    def reopen(self) -> None:
        """Open a rotated file anew."""
        self._output.reopen()
        if self._output.complaint:
            self.warning("master", f"log: {self._output.complaint}; the old one stays in use")

    def close(self) -> None:
        self._output.close()

    def _open(self) -> Output:
        if self._settings.destination == "stderr":
            fd = _own_stderr()
            return DescriptorOutput(fd, no_patience, is_owned=fd != _STDERR)
        return open_output(self._settings.destination, no_patience, self._syslog_path)

    def _write(self, line: str) -> None:
        if self.dropped != self._announced:
            count = self.dropped - self._announced
            text = f"{count} log line{'s were' if count != 1 else ' was'} lost, the destination took no more"
            if self._output.write([self._shape.message(WARNING, "master", text, {})]):
                self.dropped += 1
                return
            self._announced = self.dropped
        self.dropped += self._output.write([line])


def _own_stderr() -> int:
    """Return a descriptor for stderr that can't block.

    O_NONBLOCK belongs to the open file, which the workers and whoever started us share. A pipe or a terminal can be opened a
    second time; anything else, or one that is not ours any more, is looked at before each write.
    """
    try:
        mode = os.fstat(_STDERR).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        pass
    return _STDERR
