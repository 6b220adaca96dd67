"""`smtpd queue`: the group with all its commands."""

from smtpd.cli.queue import changing, reading
from smtpd.cli.queue.frame import queue_group

__all__ = ["changing", "queue_group", "reading"]
