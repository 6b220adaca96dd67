"""Typed failures that more than one package raises or maps. A leaf: imports nothing of the project.

Each spool failure maps to exactly one reply (proto/replies.py); each start-up failure to one sysexits code.
"""

import os


class SmtpdError(Exception):
    """Base of every failure that the project raises on purpose."""


class StartupError(SmtpdError):
    """The process can't start or go on; `exit_code` is from sysexits.h, the text is one clear line."""

    def __init__(self, text: str, exit_code: int = os.EX_SOFTWARE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class SpoolError(SmtpdError):
    """Custody could not be taken: 451 4.3.0, nothing kept."""


class SpoolFullError(SpoolError):
    """No space or no inodes above the reserve: 452 4.3.1."""


class ShardBrokenError(SpoolError):
    """An I/O error in commit or checkpoint: the shard is never written again; 451 4.3.0 for the batch."""


class ShardClosedError(SpoolError):
    """The shard was given back meanwhile: nothing was done to it."""


class ShardBusyError(SpoolError):
    """Another process holds the shard's lock; `holder` is its pid, 0 when it can't be read."""

    def __init__(self, text: str, holder: int = 0) -> None:
        super().__init__(text)
        self.holder = holder


class ShardFormatError(SpoolError):
    """The shard was written by a newer version or is corrupted; nothing in it is touched."""


class TlsFileError(SmtpdError):
    """A file of certificates or keys can't be used; the text names it."""
