"""Descriptors 0, 1 and 2 of a process that was started without them: the next socket would get the number of stderr, and a log
line for stderr would then go to a client.
"""

from __future__ import annotations

import os
import sys


def hold_standard_descriptors() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed; call it before anything else is opened."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            break
        os.set_inheritable(fd, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
