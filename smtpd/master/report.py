"""What the exporter says of the server as a whole: health, readiness, status. Reads, never changes
anything."""

from __future__ import annotations

import os
import time
from typing import Any

import smtpd
from smtpd.errors import StartupError
from smtpd.master.child import READY, Child
from smtpd.master.children import Children
from smtpd.master.directories import check_writable
from smtpd.metrics.slab import Slabs


class Report:
    """The three answers; `file` is the configuration's path, "" for the embedded default."""

    def __init__(self, children: Children, slabs: Slabs, file: str) -> None:
        self._children = children
        self._slabs = slabs
        self._file = file
        self._started_s = time.time()
        self.last_reload: dict[str, Any] | None = None
        self.last_upgrade: dict[str, Any] | None = None

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Alive: who answers at all supervises; no worker need be up."""
        return True, {"status": "ok"}

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready: every slot has a ready worker, the spool can be written, the server neither stops nor is paused."""
        slots = self._children.slots
        missing = [slot.number for slot in slots if slot.child is None or slot.child.state != READY]
        problems = []
        if self._children.is_stopping:
            problems.append("draining")
        if self._children.is_paused:
            problems.append("paused")
        if missing:
            problems.append("workers not ready: " + ", ".join(map(str, missing)))
        problem = spool_problem(self._children.generation.settings.spool.path, self._spool_is_on_disk)
        if problem:
            problems.append(problem)
        return not problems, {"status": "ready" if not problems else "not ready", "problems": problems}

    def status(self) -> dict[str, Any]:
        """Everything worth showing, for /status and `smtpd status`; times in seconds."""
        generation = self._children.generation
        now = time.monotonic()
        workers = [self._describe(child, now) for child in self._children.alive.values()]
        return {
            "version": smtpd.__version__,
            "pid": os.getpid(),
            "file": self._file,
            "hostname": generation.settings.hostname,
            "uptime_s": round(time.time() - self._started_s, 1),
            "generation": generation.number,
            "is_draining": self._children.is_stopping,
            "is_paused": self._children.is_paused,
            "sessions": self._children.session_count,
            "listeners": [{"name": entry.name, "address": entry.label} for entry in generation.listeners],
            "workers": sorted(workers, key=lambda worker: (worker["slot"], worker["generation"])),
            "restarts": {str(slot.number): slot.restarts for slot in self._children.slots},
            "last_reload": self.last_reload,
            "last_upgrade": self.last_upgrade,
        }

    @property
    def _spool_is_on_disk(self) -> bool:
        return self._children.generation.settings.spool.engine == "sqlite"

    def _describe(self, child: Child, now: float) -> dict[str, Any]:
        status = self._slabs.status(child.bank)
        return {
            "slot": child.slot,
            "pid": child.pid,
            "generation": child.generation.number,
            "state": child.state,
            "sessions": status.sessions,
            "uptime_s": round(now - child.started_s, 1),
            "heartbeat_age_s": round(now - status.heartbeat_s, 3),
        }


def spool_problem(path: str, is_on_disk: bool) -> str:
    """Why the spool can't take mail as far as the master can see; "" when nothing is wrong."""
    if not is_on_disk:
        return ""
    try:
        check_writable(path)
    except StartupError as error:
        return f"spool: {error}"
    except OSError as error:
        return f"spool: {path}: {error.strerror}"
    return ""
