"""Which sockets a configuration listens on: those that are there already, and new ones for the rest.

What is there comes from the generation before (HUP), the program before (USR2) or the service manager. A listener finds its
sockets by its address, those of a service manager by its name. Owns nothing: the caller closes what was bound when he fails.
Raises StartupError.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from smtpd.errors import StartupError, TlsFileError
from smtpd.net import shutter
from smtpd.net.listeners import ListenerSockets, add_slot, are_overlapping, bind_listener, close_listener
from smtpd.net.tls.server import make_server_tls
from smtpd.settings import ListenerSettings, TlsSettings


@dataclass(slots=True)
class Opened:
    """`listeners` in the order of the configuration; `bound` are those of them that are new, `dropped` those that were there
    and are wanted no more, `spare` those of a service manager that no listener asks for now."""

    listeners: list[ListenerSockets] = field(default_factory=list)
    bound: list[ListenerSockets] = field(default_factory=list)
    dropped: list[ListenerSockets] = field(default_factory=list)
    spare: list[ListenerSockets] = field(default_factory=list)

    def close_bound(self) -> None:
        """Take back what was done."""
        for listener in self.bound:
            shutter.retire(listener)


def open_listeners(
    entries: Iterable[ListenerSettings],
    known: Iterable[ListenerSockets],
    slots: int,
    owner_uid: int = -1,
    *,
    is_paused: bool = False,
) -> Opened:
    """Find or bind the sockets of all listeners, each with one for at least `slots` slots unless it is shared.

    `is_paused`: none of them listens. Whatever was bound is closed again when one can't be had.
    """
    given = {entry.name: entry for entry in known if entry.is_given}
    own = {entry.settings.address: entry for entry in known if not entry.is_given}
    opened = Opened()
    try:
        for entry in entries:
            name = entry.name or entry.address
            there = given.pop(name, None) or own.pop(entry.address, None)
            if there is not None:
                listener = ListenerSockets(entry, name, there.sockets, there.is_given, there.label, there.bound_to, there.tls)
            else:
                is_beside_own = any(are_overlapping(entry.address, other.settings.address) for other in own.values())
                listener = bind_listener(entry, 1, owner_uid, is_beside_own=is_beside_own)
                opened.bound.append(listener)
                if is_paused:
                    shutter.lower(listener)
                    shutter.shut(listener)
            opened.listeners.append(listener)
            while not listener.is_shared and len(listener.sockets) < slots:
                add_slot(listener, owner_uid, is_listening=not is_paused)
    except (StartupError, OSError):
        opened.close_bound()
        raise
    opened.dropped = list(own.values())
    opened.spare = list(given.values())
    return opened


def equip_listeners(listeners: Iterable[ListenerSockets], settings: TlsSettings) -> None:
    """Make the TLS of each, with the keys that only root may read before the drop; what has not changed is kept. StartupError for
    files that can't be used."""
    try:
        for listener in listeners:
            listener.tls = make_server_tls(listener.settings, settings, listener.tls)
    except TlsFileError as error:
        raise StartupError(f"tls: {error}", os.EX_CONFIG) from None


def close_all(listeners: Iterable[ListenerSockets], *, is_handed_over: bool = False) -> None:
    """Close this process's descriptors; what is not handed over listens no more."""
    for listener in listeners:
        if is_handed_over:
            close_listener(listener, is_handed_over=True)
        else:
            shutter.retire(listener)
