"""Custody of mail between our 250 and its delivery. Begin with base.py (the face), then sqlite.py and shard.py."""

from smtpd.spool.observers import SpoolObservers
from smtpd.spool.open import open_spool

__all__ = ["SpoolObservers", "open_spool"]
