"""`smtpd queue`: the group with all its commands."""

from smtpd.cli.queue import changing, moving, reading
from smtpd.cli.queue.frame import queue_group

__all__ = ["changing", "moving", "queue_group", "reading"]
